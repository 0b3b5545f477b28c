-- title: "Customers by gender, device and age on the day of the last booking, in steps of five years."
-- tables: customer, transactions
-- charts:
--   Gender: {kind: bars, x: gender, y: customers, unit: customers, section: Customers, order: 60, width: 1/2}
--   Device: {kind: bars, x: device_type, y: customers, unit: customers, section: Customers, order: 70, width: 1/2}
--   Age:
--     {kind: columns, x: age, y: customers, unit: customers, section: Customers, order: 80,
--     note: "In steps of five years, on the day of the last booking."}
SELECT gender, device_type, CAST(floor(years / 5) * 5 AS BIGINT) AS age, count(*) AS customers
FROM (
    SELECT gender, device_type, year(today) - year(birthdate_date)
        - CASE WHEN month(birthdate_date) * 100 + day(birthdate_date) > month(today) * 100 + day(today)
          THEN 1 ELSE 0 END AS years
    FROM customer CROSS JOIN (SELECT CAST(max(created_at_ts) AS DATE) AS today FROM transactions) AS last_day
) AS aged
GROUP BY 1, 2, 3
