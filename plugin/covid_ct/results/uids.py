"""UIDs that a second analysis of the same images makes again."""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydicom.uid import UID

from covid_ct import __version__


@dataclass(frozen=True)
class ResultUids:
    """Derives every UID of one analysis' results from what decides their content.

    Attributes
    ----------
    key: str
        Hexadecimal digest that stands for the analysis, from `of_analysis`.
    """

    key: str

    @classmethod
    def of_analysis(
        cls, source_instance_uids: Iterable[str], model_sha256s: Iterable[str], settings: Mapping[str, object]
    ) -> "ResultUids":
        """Digest what decides the content of the results, and the plugin's version.

        Parameters
        ----------
        source_instance_uids: Iterable[str]
            SOPInstanceUIDs of the analysed images, in any order.
        model_sha256s: Iterable[str]
            sha256s of the models' ONNX files, in any order.
        settings: Mapping[str, object]
            Every setting that changes the content of a result, by its name; values that JSON can hold.

        Returns
        -------
        ResultUids
        """
        content = [sorted(source_instance_uids), sorted(model_sha256s), __version__, dict(settings)]
        return cls(hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest())

    def derive(self, *role: str) -> UID:
        """UID for a role, such as ("lungs.seg", "series"); another for each role and analysis.

        Returns
        -------
        UID
            Under 2.25, as ITU-T X.667 makes UIDs from UUIDs (PS3.5 B.2).
        """
        digest = hashlib.sha256(json.dumps([self.key, *role]).encode()).digest()
        return UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}")
