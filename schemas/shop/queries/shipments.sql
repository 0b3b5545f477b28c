-- title: Bookings by year and by where they are shipped to, in squares of half a degree.
-- tables: transactions
-- filters: {Years: year}
-- charts:
--   Where bookings are shipped to:
--     {kind: map, x: longitude, y: latitude, size: bookings, unit: bookings, outline: indonesia.json, section: Sales,
--     order: 20, width: 3/5, note: "A dot per half degree, its size by the number of bookings."}
SELECT year(created_at_ts) AS year, floor(shipment_location_lat_deg * 2) / 2 + 0.25 AS latitude,
    floor(shipment_location_long_deg * 2) / 2 + 0.25 AS longitude, count(*) AS bookings
FROM transactions
WHERE shipment_location_lat_deg IS NOT NULL AND shipment_location_long_deg IS NOT NULL
GROUP BY 1, 2, 3
