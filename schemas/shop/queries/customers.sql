-- title: Customers by gender, device and age in full years on the day of the last booking.
-- tables: customer, transactions
SELECT gender, device_type,
    year(today) - year(birthdate_date)
    - CASE WHEN month(birthdate_date) * 100 + day(birthdate_date) > month(today) * 100 + day(today)
      THEN 1 ELSE 0 END AS age,
    count(*) AS customers
FROM customer CROSS JOIN (SELECT CAST(max(created_at_ts) AS DATE) AS today FROM transactions) AS last_day
GROUP BY 1, 2, 3
