-- title: Products by category, subcategory and usage.
-- tables: product
SELECT masterCategory AS category, subCategory AS subcategory, usage, count(*) AS products
FROM product GROUP BY 1, 2, 3
