-- title: Bookings by month, payment and promotion, with their amounts in IDR.
-- tables: transactions
-- filters: {Years: month}
-- charts:
--   Promotions:
--     {kind: bars, x: promo_code, y: bookings, unit: bookings, nulls: false, section: Sales, order: 40, width: 2/5,
--     summary: "{given} of all bookings used one.", note: Bookings by promotion code.}
--   Payment method:
--     {kind: bars, x: payment_method, y: bookings, unit: bookings, section: Traffic and payment, order: 140, width: 1/3}
--   Transactions per year:
--     {kind: columns, x: year, y: bookings, unit: transactions, section: Traffic and payment, order: 150}
SELECT CAST(date_trunc('month', created_at_ts) AS DATE) AS month, year(created_at_ts) AS year, payment_method,
    payment_status, promo_code, count(*) AS bookings, CAST(sum(total_amount) AS BIGINT) AS amount,
    CAST(sum(promo_amount) AS BIGINT) AS discount, CAST(sum(shipment_fee) AS BIGINT) AS shipment
FROM transactions GROUP BY 1, 2, 3, 4, 5
