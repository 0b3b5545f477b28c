"""What the published shop looks like: its counts, shares, categories and words.

Only constants belong here, as reported by public analyses of the data set; weights
are the published counts where they are known. Names of people and brands are
invented. How the constants become rows is the matter of `synthetic`.
"""

from __future__ import annotations

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ROWS = {"customer": 100_000, "product": 44_446, "transactions": 852_584, "click_stream": 12_833_602}
"""Rows per table at scale 1."""

ORPHAN_SESSIONS = 42_621
"""Click sessions without a transaction at scale 1."""

ORPHANS_WITH_CART = 19_479
"""How many of those hold an ADD_TO_CART."""

SILENT_BOOKINGS = 2
"""Transactions whose session has no clicks, at any scale."""

BUYERS = 0.50705
"""Share of the customers with at least one transaction."""

FIRST_DAY, LAST_DAY = "2016-06-30", "2022-07-31"
"""First and last day of sign-ups and of transactions."""

# ---------------------------------------------------------------- customers

GENDERS = {"F": 64_230, "M": 35_770}
DEVICES = {"Android": 76_637, "iOS": 23_363}

ANDROID = tuple(
    f"Android {v}"
    for v in _words(
        "1.6 2.0 2.1 2.2 2.2.1 2.2.3 2.3 2.3.1 2.3.4 2.3.7 3.0 3.1 3.2 3.2.6 4.0 4.0.1 4.0.4 4.1 4.1.2 4.2 4.2.2 4.3"
        " 4.3.1 4.4 4.4.4 5.0 5.0.2 5.1 5.1.1 6.0 6.0.1 7.0 7.1 7.1.2 8.0.0 8.1.0"
    )
)
IOS = tuple(
    f"{device}; CPU {device} OS {v} like Mac OS X"
    for device in ("iPhone", "iPad")
    for v in _words("3_1_3 4_2_1 5_1_1 6_1_6 7_1_2 9_3_5 9_3_6 10_3_3 10_3_4 12_4_8 12_5_1 13_7 14_1 14_2 14_2_1")
)

# Province, weight, latitude and longitude of its middle in degrees. The weights are
# not published; only the order of the first three is.
PROVINCES = (
    ("Jakarta Raya", 190, -6.2, 106.8), ("Jawa Barat", 165, -6.9, 107.5), ("Jawa Tengah", 150, -7.2, 110.2),
    ("Jawa Timur", 110, -7.7, 112.7), ("Yogyakarta", 70, -7.8, 110.4), ("Sumatera Utara", 30, 2.6, 98.9),
    ("Banten", 25, -6.4, 106.1), ("Sumatera Barat", 15, -0.8, 100.4), ("Sumatera Selatan", 15, -3.2, 104.2),
    ("Sulawesi Selatan", 18, -4.1, 119.9), ("Bali", 16, -8.4, 115.1), ("Lampung", 14, -4.9, 105.0),
    ("Aceh", 12, 4.3, 96.8), ("Riau", 12, 0.5, 101.8), ("Nusa Tenggara Timur", 12, -9.2, 122.0),
    ("Papua", 12, -4.2, 138.7), ("Kalimantan Barat", 10, -0.2, 110.5), ("Kalimantan Selatan", 10, -3.0, 115.3),
    ("Kalimantan Timur", 10, 0.6, 116.5), ("Kalimantan Tengah", 9, -1.7, 113.4), ("Sulawesi Tengah", 9, -1.1, 120.6),
    ("Nusa Tenggara Barat", 9, -8.6, 117.4), ("Jambi", 9, -1.6, 102.8), ("Kepulauan Riau", 8, 0.9, 104.5),
    ("Sulawesi Utara", 8, 1.0, 124.5), ("Sulawesi Tenggara", 8, -4.0, 122.2), ("Maluku", 7, -3.6, 128.5),
    ("Bengkulu", 6, -3.6, 102.4), ("Bangka Belitung", 6, -2.5, 106.6), ("Papua Barat", 5, -1.4, 133.0),
    ("Gorontalo", 4, 0.7, 122.4), ("Maluku Utara", 4, 0.8, 127.8), ("Sulawesi Barat", 4, -2.5, 119.3),
)  # fmt: skip

GIVEN_NAMES = _words(
    "Adika Adinda Agung Aisah Alita Amara Anggi Anindya Ardan Arini Arum Asri Ayuna Bagas Banyu Bayu Bulan Cahya"
    " Candra Cinta Damar Danar Darma Dewanti Dimas Dinara Dwika Elok Endah Fajar Farah Galih Gayatri Gilang Hapsari"
    " Harun Hesti Ilham Indah Intan Irawati Jaka Jarwo Jelita Kadek Kania Kartika Kencana Kirana Kusuma Laksmi Laras"
    " Lestari Lintang Lukman Mahesa Mala Maya Melati Murni Nadia Naya Nilam Nirmala Nuraini Okta Padma Panji Permata"
    " Pramana Prita Puspa Putri Radit Raka Rania Ratih Rimba Rinjani Rizal Sagara Salma Sari Satya Sekar Senja Sinta"
    " Surya Tirta Titi Tresna Ulya Utari Wahyu Wening Widya Wira Wulan Yasmin Yoga Yuda Zahra Zaki"
)
SURNAMES = _words(
    "Abimanyu Adiwijaya Anggraini Ardianto Astuti Atmaja Baskara Budiman Cahyono Darmawan Dewantara Fadhilah Firmansah"
    " Gunadi Gunarto Hadisaputra Halimah Handayani Hardianto Hartati Haryono Hidayah Iskandar Ismaya Jayadi Kurniadi"
    " Kusumawati Laksana Lazuardi Mahardika Mandasari Mangkubumi Maryadi Maulida Mulyadi Nainggolan Natsir Novianti"
    " Nugraha Nurdiana Oktaviana Padmasari Pangestu Permadi Prabowo Pranowo Prasetya Prayoga Pudjiastuti Purnama"
    " Purwanti Rahayu Rajasa Ramadhan Riyanti Sapardi Saputra Sasmita Setiawan Siregar Sitompul Subagja Sudirman"
    " Suhartini Sulistya Sumarni Suryadi Susanti Sutrisna Suwarno Tamba Tanjung Utami Wahyudi Waluyo Wibawa Wibisana"
    " Widodo Wijayanti Winarsih Wiryawan Yulianti Yuniarti Zulkarnaen"
)
EMAIL_DOMAINS = ("example.com", "example.org")

# ----------------------------------------------------------------- products

PRODUCT_ID_LOW, PRODUCT_ID_HIGH = 1_163, 60_000
OVERFLOWING = {"Accessories": 15, "Apparel": 3, "Footwear": 3, "Personal Care": 1}
"""Product lines with unquoted commas in the name, by category; two of the 22 have two commas."""

PRODUCT_NULLS = {"baseColour": 15, "season": 21, "year": 1, "usage": 317, "productDisplayName": 7}
"""Empty fields per column at scale 1."""

# masterCategory | subCategory | count | audience | article types. Which article types
# belong to a subCategory and how often is not published. Audience W is women's ware.
CATALOGUE = tuple(
    (master, sub, int(count), audience, tuple(types.split(", ")))
    for master, sub, count, audience, types in (
        [field.strip() for field in line.split("|")]
        for line in """\
Apparel|Topwear|15405||Tshirts, Tshirts, Tshirts, Shirts, Shirts, Kurtas, Tops, Sweatshirts, Sweaters, Jackets, \
Tunics, Blazers, Waistcoat, Rain Jacket, Nehru Jackets, Shrug, Kurtis, Rompers, Dupatta, Belts
Apparel|Bottomwear|2694||Jeans, Jeans, Shorts, Trousers, Track Pants, Leggings, Capris, Skirts, Salwar, Churidar, \
Patiala, Jeggings, Tights, Rain Trousers, Stockings, Swimwear
Apparel|Innerwear|1808||Briefs, Briefs, Bra, Innerwear Vests, Trunk, Boxers, Camisoles, Shapewear
Apparel|Dress|478|W|Dresses, Jumpsuit
Apparel|Loungewear and Nightwear|470||Night suits, Nightdress, Lounge Pants, Lounge Shorts, Lounge Tshirts, \
Baby Dolls, Bath Robe, Robe
Apparel|Saree|427|W|Sarees
Apparel|Apparel Set|106||Kurta Sets, Clothing Set, Lehenga Choli, Tracksuits, Swimwear Set, Salwar and Dupatta
Apparel|Socks|12||Socks, Booties
Accessories|Bags|3055||Handbags, Handbags, Backpacks, Clutches, Laptop Bag, Duffel Bag, Messenger Bag, Rucksacks, \
Mobile Pouch, Trolley Bag, Waist Pouch, Tablet Sleeve
Accessories|Watches|2557||Watches
Accessories|Jewellery|1079|W|Earrings, Pendant, Necklace and Chains, Ring, Bangle, Bracelet, Jewellery Set
Accessories|Eyewear|1073||Sunglasses
Accessories|Wallets|933||Wallets
Accessories|Belts|811||Belts
Accessories|Socks|686||Socks
Accessories|Headwear|293||Caps, Hat, Headband
Accessories|Ties|258||Ties
Accessories|Accessories|129||Accessory Gift Set, Key chain, Travel Accessory, Hair Accessory, Ties and Cufflinks
Accessories|Scarves|118||Scarves
Accessories|Cufflinks|108||Cufflinks
Accessories|Stoles|90|W|Stoles
Accessories|Mufflers|38||Mufflers
Accessories|Shoe Accessories|24||Shoe Accessories, Shoe Laces
Accessories|Gloves|20||Gloves
Accessories|Water Bottle|7||Water Bottle
Accessories|Umbrellas|6||Umbrellas
Accessories|Sports Accessories|3||Wristbands
Accessories|Perfumes|1||Perfume and Body Mist
Footwear|Shoes|7346||Casual Shoes, Casual Shoes, Sports Shoes, Sports Shoes, Heels, Formal Shoes, Flats
Footwear|Sandal|963||Sandals, Sports Sandals
Footwear|Flip Flops|913||Flip Flops
Personal Care|Fragrance|1012||Perfume and Body Mist, Deodorant, Fragrance Gift Set
Personal Care|Lips|527|W|Lipstick, Lip Gloss, Lip Liner, Lip Care, Lip Plumper
Personal Care|Nails|329|W|Nail Polish, Nail Essentials
Personal Care|Makeup|307|W|Foundation and Primer, Compact, Highlighter and Blush, Concealer, Makeup Remover
Personal Care|Skin Care|77||Face Moisturisers, Sunscreen, Mask and Peel, Eye Cream, Face Serum and Gel, Body Lotion
Personal Care|Skin|69||Face Wash and Cleanser, Face Scrub and Exfoliator, Toner
Personal Care|Eyes|43|W|Kajal and Eyeliner, Eyeshadow, Mascara
Personal Care|Hair|19||Hair Colour
Personal Care|Bath and Body|12||Body Wash and Scrub
Personal Care|Perfumes|5||Perfume and Body Mist
Personal Care|Beauty Accessories|4||Beauty Accessory
Free Items|Free Gifts|104||Free Gifts
Free Items|Vouchers|1||Vouchers
Sporting Goods|Sports Equipment|21||Basketballs, Footballs
Sporting Goods|Wristbands|4||Wristbands
Home|Home Furnishing|1||Cushion Covers""".splitlines()
    )
)

AUDIENCES = {"Men": 525, "Women": 385, "Unisex": 52, "Boys": 19, "Girls": 19}
"""Audience of ware that is not women's alone; catalogue shares are not published."""

COLOURS = {
    "Black": 9728, "White": 5538, "Blue": 4918, "Brown": 3494, "Grey": 2741, "Red": 2455, "Green": 2115, "Pink": 1860,
    "Navy Blue": 1789, "Purple": 1640, "Silver": 1090, "Yellow": 778, "Beige": 749, "Gold": 628, "Maroon": 581,
    "Orange": 530, "Olive": 410, "Multi": 394, "Cream": 390, "Steel": 315, "Charcoal": 228, "Peach": 195,
    "Off White": 182, "Skin": 179, "Lavender": 162, "Grey Melange": 146, "Khaki": 139, "Magenta": 129, "Teal": 120,
    "Tan": 114, "Mustard": 97, "Bronze": 95, "Copper": 86, "Turquoise Blue": 69, "Rust": 66, "Burgundy": 45,
    "Metallic": 43, "Coffee Brown": 31, "Mauve": 29, "Rose": 28, "Nude": 23, "Sea Green": 22, "Mushroom Brown": 16,
    "Taupe": 11, "Lime Green": 6, "Fluorescent Green": 5,
}  # fmt: skip
SEASONS = {"Summer": 21_472, "Fall": 11_431, "Winter": 8_517, "Spring": 2_983}
YEARS = {
    "2007": 2, "2008": 7, "2009": 20, "2010": 846, "2011": 13_672, "2012": 16_288, "2013": 1_212, "2014": 236,
    "2015": 2_780, "2016": 6_006, "2017": 2_916, "2018": 405, "2019": 33,
}  # fmt: skip
USAGES = {
    "Casual": 34_406, "Sports": 4_025, "Ethnic": 3_208, "Formal": 2_345, "Smart Casual": 67, "Party": 29,
    "Travel": 26, "Home": 1,
}  # fmt: skip

BRANDS = (
    "Amarta", "Anoman & Co", "Batavia", "Benang Mas", "Bintang 7", "Borneo Bay", "Cakra", "Candi's", "Cempaka",
    "Dahlia", "Dewata", "D'Senja", "Elang Jawa", "Gajah & Harimau", "Garuda Sport", "Gema", "Halmahera", "Indra",
    "Jalak", "Jepara Works", "Kala", "Kamboja", "Kembang", "Kilat", "Langit", "Lawu", "Lombok St.", "Mahameru",
    "Mataram", "Merapi", "Nagari", "Nusa Surf", "Ombak", "Pelangi", "Perahu", "Raden's", "Rimba", "Sanur", "Sembilan",
    "Semeru", "Serambi", "Songket & Sons", "Tambora", "Toba", "Ubud", "Wayang", "Widuri", "anggrek", "bambu",
    "3 Musim", "21 Maret", "99 Laut",
)  # fmt: skip
STYLES = (
    "", "", "", "Printed ", "Solid ", "Striped ", "Classic ", "Slim Fit ", "Dr. Rasa ", "Check ", "Basic ", "Vintage ",
    "Round Neck ", "Lightweight ", "Series 2 ", "Soft ", "Urban ", "Embroidered ",
)  # fmt: skip
SURPLUS = (("Pack of 2, Gift Box", ", "), ("Small,Medium", ","), ("Matt, Long Lasting", ", "), ("Washed,Dyed", ","))
"""Endings that put unquoted commas into a product's name, and how a second comma is written after them."""

# ------------------------------------------------------------- transactions

STATUSES = {"Success": 815_964, "Failed": 36_620}
METHODS = {"Credit Card": 299_586, "Gopay": 171_334, "OVO": 169_066, "Debit Card": 137_269, "LinkAja": 75_329}

# Bookings; the split of the three rarest codes is known for lines alone, and scaled from there.
WEEKEND_PROMOS = {"WEEKENDSERU": 61_941, "LIBURDONG": 20_965, "WEEKENDMANTAP": 20_376}
ANYDAY_PROMOS = {"AZ2022": 89_227, "BUYMORE": 66_835, "XX2022": 44_744, "SC2022": 11_303, "STARTUP": 11_145}

# Shares are not published; these give the published quartiles (0, 10,000, 10,000).
SHIPMENT_FEES = {0: 28, 5_000: 15, 10_000: 37, 15_000: 10, 25_000: 6, 50_000: 4}

REPEATED_SHIPMENT = 0.54
"""Share of the bookings sent to the customer's usual point, which gives the published count of distinct points."""

PRICE_MEDIAN, PRICE_SPREAD, PRICE_LOW, PRICE_HIGH = 233_540, 0.461, 5_600, 1_200_357
PROMO_MEDIAN, PROMO_SPREAD, PROMO_HIGH = 5_400, 0.75, 24_519
"""Log-normal prices and discounts in IDR: median, standard deviation of the logarithm, limits."""


def _curve(first: int, knots: dict[int, float]) -> np.ndarray:
    """Weights from ``first`` to the last knot, geometric between the knots."""
    return np.exp(np.interp(np.arange(first, max(knots) + 1), list(knots), np.log(list(knots.values()))))


ITEMS = _curve(
    1,
    {1: 706_668, 2: 68_100, 3: 28_180, 4: 16_038, 5: 9_791, 6: 6_550, 7: 4_407, 8: 3_393, 9: 2_211, 10: 1_701}
    | {11: 1_259, 30: 9.4, 50: 0.1, 51: 1},
)
"""Bookings with 1, 2, … 51 items; known up to 10, and beyond it only the mean and the maximum."""

QUANTITIES = ITEMS[:48]
"""Quantity of an item; only maximum, quartiles and mean (1.48) are known, and they are those of the items."""

# ------------------------------------------------------------- click stream

EVENTS = {
    "HOMEPAGE": 2_487_126, "ADD_TO_CART": 1_937_157, "ADD_PROMO": 326_535, "BOOKING": 852_582, "SEARCH": 1_173_266,
    "ITEM_DETAIL": 1_290_396, "PROMO_PAGE": 604_931, "SCROLL": 1_663_571, "CLICK": 2_498_038,
}  # fmt: skip
TRAFFIC = {"MOBILE": 805_552, "WEB": 89_651}

SHORTEST, LONGEST = 2, 650
LENGTHS = _curve(
    SHORTEST,
    {2: 4_794, 3: 8_218, 4: 90_348, 5: 83_283, 6: 68_265, 7: 59_056, 8: 52_737, 9: 47_569, 10: 43_231, 11: 38_980}
    | {12: 34_935, 15: 26_203, 20: 16_312, 21: 14_695, 60: 455, 150: 5.94, 649: 0.2, LONGEST: 1},
)
"""Sessions with 2, 3, … 650 events; the last knots are fitted to the published mean of 14.336."""

KEYWORDS = _words(
    "Baju Bekas Celana Sepatu Sandal Tas Kemeja Kaos Jaket Dompet Topi Batik Kebaya Rok Gaun Hijab Jam Kacamata"
    " Ikat Kaus"
)
"""Search words; two are published, the others are everyday words of the same kind."""
