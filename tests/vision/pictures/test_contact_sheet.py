"""A row a class, and what does not fit is said."""

from PIL import Image

from quintet.vision.pictures.contact_sheet import COLUMNS, ROWS, SIDE, contact_sheet


def images(count: int, size=(4, 2)) -> list[tuple[Image.Image, str]]:
    return [(Image.new("RGB", size), f"{number}.png") for number in range(count)]


def test_each_row_is_a_class_and_each_image_over_its_name():
    figure = contact_sheet({"a": images(2), "b": images(COLUMNS + 1)}, "$t")
    rows = [figure.axes[:COLUMNS], figure.axes[COLUMNS:]]
    assert [row[0].get_ylabel() for row in rows] == ["a", "b"]
    assert [[len(panel.images) for panel in row] for row in rows] == [[1, 1] + [0] * (COLUMNS - 2), [1] * COLUMNS]
    texts = [text.get_text() for panel in rows[0][:2] for text in [panel.title, panel.xaxis.label, *panel.texts]]
    assert {"0.png", "1.png"} <= set(texts)
    assert figure.get_suptitle() == "$t"


def test_classes_that_do_not_fit_are_counted():
    figure = contact_sheet({str(index): images(1) for index in range(ROWS + 3)}, "t")
    assert figure.get_suptitle() == "t, 3 more classes not shown"
    assert len(figure.axes) == ROWS * COLUMNS


def test_large_images_are_made_small_and_small_ones_stay():
    figure = contact_sheet({"a": images(1, (4 * SIDE, 2 * SIDE)) + images(1)}, "t")
    shapes = [panel.images[0].get_array().shape[:2] for panel in figure.axes[:2]]
    assert shapes == [(SIDE // 2, SIDE), (2, 4)]
