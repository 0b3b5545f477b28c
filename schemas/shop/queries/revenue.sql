-- title: "Paid items by month and category: units, and their value in IDR before promotions."
-- tables: product, sales
-- filters: {Years: month, Category of products: category}
-- charts:
--   Revenue by month:
--     {kind: columns, x: month, y: amount, unit: IDR, summary: "Rp {total}", section: Sales, order: 10,
--     note: "Paid items at their price, before promotions and shipment."}
SELECT CAST(date_trunc('month', created_at_ts) AS DATE) AS month, masterCategory AS category,
    CAST(sum(quantity) AS BIGINT) AS units, CAST(sum(quantity * item_price) AS BIGINT) AS amount
FROM sales LEFT JOIN product ON sales.product_id = product.id
WHERE payment_status = 'Success' GROUP BY 1, 2
