-- tables: transactions
SELECT booking_id, created_at_ts, payment_status, item.product_id, item.quantity, item.item_price
FROM (SELECT booking_id, created_at_ts, payment_status, explode(items) AS item FROM transactions)
