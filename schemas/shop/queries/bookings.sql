-- title: Bookings by month, payment and promotion, with their amounts in IDR.
-- tables: transactions
SELECT CAST(date_trunc('month', created_at_ts) AS DATE) AS month, payment_method, payment_status, promo_code,
    count(*) AS bookings, CAST(sum(total_amount) AS BIGINT) AS amount,
    CAST(sum(promo_amount) AS BIGINT) AS discount, CAST(sum(shipment_fee) AS BIGINT) AS shipment
FROM transactions GROUP BY 1, 2, 3, 4
