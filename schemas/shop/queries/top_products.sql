-- title: The 20 products that earned most in each span of years, of each category.
-- tables: transactions, product, sales
-- filters: {Years: "first_year, last_year", Category of products: category}
-- charts:
--   Products that earned most:
--     {kind: table, columns: {name: Product, category: Category, units: Units, amount: "Revenue, IDR"}, by: amount,
--     rows: 20, section: Sales, order: 50, width: 3/5}
WITH sold AS (
    SELECT year(created_at_ts) AS year, product_id, sum(quantity) AS units,
        sum(quantity * item_price) AS amount
    FROM sales WHERE payment_status = 'Success' GROUP BY 1, 2
), years AS (
    SELECT DISTINCT year(created_at_ts) AS year FROM transactions
), spans AS (
    SELECT a.year AS first_year, b.year AS last_year FROM years AS a JOIN years AS b ON a.year <= b.year
), earned AS (
    SELECT first_year, last_year, product_id, sum(units) AS units, sum(amount) AS amount
    FROM sold JOIN spans ON year BETWEEN first_year AND last_year GROUP BY 1, 2, 3
), best AS (
    SELECT * FROM (
        SELECT first_year, last_year, product_id, productDisplayName AS name, masterCategory AS category,
            units, amount,
            row_number() OVER (
                PARTITION BY first_year, last_year, masterCategory ORDER BY amount DESC, product_id
            ) AS place_in_category
        FROM earned LEFT JOIN product ON product_id = id
    ) AS placed
    WHERE place_in_category <= 20
)
SELECT first_year, last_year, product_id, name, category, CAST(units AS BIGINT) AS units, CAST(amount AS BIGINT) AS amount
FROM best
