-- title: Products by category, subcategory and usage.
-- tables: product
-- filters: {Category of products: category}
-- charts:
--   Master category:
--     {kind: bars, x: category, y: products, unit: products, most: 10, section: Catalog, order: 90, width: 1/3}
--   Sub-category:
--     {kind: bars, x: subcategory, y: products, unit: products, most: 10, section: Catalog, order: 100, width: 1/3}
--   Usage: {kind: bars, x: usage, y: products, unit: products, most: 10, section: Catalog, order: 110, width: 1/3}
SELECT masterCategory AS category, subCategory AS subcategory, usage, count(*) AS products
FROM product GROUP BY 1, 2, 3
