"""Pages of the Prefect UI, a page a file.

page              markdown with pictures, bounded in size, foreign names escaped
night_page        `night`, of a sealed night
failure_page      `night`, of a night that failed
lost_nights       `night`, of one that was killed, or failed before it began
model_page        `model`
gallery_pages     `gallery-integrated-gradients`, `gallery-grad-cam`, `gallery-misclassified`
class_means_page  `class-means`
chosen_rows       which rows are drawn
sheets            sheets of explained rows under common headings
worth/            `worth`, `strategies`, `drift`
figures/          what pages are made of beside pictures of rows
how_to_read       how a picture of an attribution or a map is read
"""
