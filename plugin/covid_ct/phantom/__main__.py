"""`python -m covid_ct.phantom OUTPUT`: write the phantom as a DICOM series, and its truth beside it."""

import argparse
import json
from pathlib import Path

from covid_ct.phantom import Lesions, PhantomOptions, Position, make_phantom, write_folder


def main() -> None:
    """Write OUTPUT/series/IM*.dcm and OUTPUT/truth.json."""
    defaults = PhantomOptions()
    parser = argparse.ArgumentParser(prog="python -m covid_ct.phantom", description=main.__doc__)
    parser.add_argument("output", type=Path, help="folder for series/ and truth.json")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--slices", type=int, default=defaults.slices)
    parser.add_argument("--spacing", type=float, default=defaults.spacing_mm, help="mm between slices")
    parser.add_argument("--thickness", type=float, default=defaults.thickness_mm, help="mm; 0 means the spacing")
    parser.add_argument("--matrix", type=int, default=defaults.matrix, help="rows and columns")
    parser.add_argument("--lesions", type=Lesions, choices=list(Lesions), default=defaults.lesions)
    parser.add_argument("--position", type=Position, choices=list(Position), default=defaults.position)
    parser.add_argument("--columns-to-front", action="store_true", help="store the images upside down")
    parser.add_argument("--reversed-order", action="store_true", help="number the slices from the other end")
    given = parser.parse_args()
    try:
        options = PhantomOptions(
            seed=given.seed,
            slices=given.slices,
            spacing_mm=given.spacing,
            thickness_mm=given.thickness,
            matrix=given.matrix,
            lesions=given.lesions,
            position=given.position,
            columns_to_front=given.columns_to_front,
            reversed_order=given.reversed_order,
        )
    except ValueError as error:
        parser.error(str(error))
    phantom = make_phantom(options)
    files = write_folder(phantom, given.output / "series")
    truth = given.output / "truth.json"
    truth.write_text(json.dumps(phantom.truth.to_dict(), indent=2) + "\n")
    print(f"{len(files)} slices in {given.output / 'series'}, truth in {truth}")


if __name__ == "__main__":
    main()
