-- title: Bookings by year and by where they are shipped to, in squares of half a degree.
-- tables: transactions
SELECT year(created_at_ts) AS year, floor(shipment_location_lat_deg * 2) / 2 + 0.25 AS latitude,
    floor(shipment_location_long_deg * 2) / 2 + 0.25 AS longitude, count(*) AS bookings
FROM transactions
WHERE shipment_location_lat_deg IS NOT NULL AND shipment_location_long_deg IS NOT NULL
GROUP BY 1, 2, 3
