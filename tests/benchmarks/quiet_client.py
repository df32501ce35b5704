"""Calls Orthanc as others do, one call after the other, until a line comes in; prints the seconds of each as JSON.

Runs in the peers' Python, for pynetdicom: a process started for each call would be measured instead of Orthanc.
"""

import http.client
import io
import json
import sys
import threading
import time
from collections.abc import Callable

from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import Verification

PAUSE_S = 0.005

QUICK, TIMES = "GET /system", 10
"""A call that takes a hundredth of the others' time is made more often, for its slowest of a hundred to be told."""


def main() -> None:
    http_port, dicom_port, image = int(sys.argv[1]), int(sys.argv[2]), dcmread(sys.argv[3])
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    entity = AE("STORESCU")
    entity.add_requested_context(Verification)
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)

    def fresh() -> Dataset:
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        return image

    def encoded() -> bytes:
        buffer = io.BytesIO()
        fresh().save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()

    def request(method: str, path: str, body: bytes | None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", http_port)
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        assert answer.status == 200

    def in_association(call: Callable[[object], object]) -> None:
        association = entity.associate("127.0.0.1", dicom_port, ae_title="ORTHANC")
        assert association.is_established
        status = call(association)
        assert status.Status == 0
        association.release()

    calls: dict[str, tuple[Callable[[], object], Callable[[object], object]]] = {
        "GET /system": (lambda: None, lambda _: request("GET", "/system", None)),
        "POST /instances": (encoded, lambda body: request("POST", "/instances", body)),
        "C-ECHO": (lambda: None, lambda _: in_association(lambda association: association.send_c_echo())),
        "C-STORE": (fresh, lambda new: in_association(lambda association: association.send_c_store(new))),
    }
    enough = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), enough.set()), daemon=True).start()
    times: dict[str, list[float]] = {name: [] for name in calls}
    while not enough.is_set():
        for name, (prepare, call) in calls.items():
            for _ in range(TIMES if name == QUICK else 1):
                prepared = prepare()
                begin = time.perf_counter()
                call(prepared)
                times[name].append(time.perf_counter() - begin)
                time.sleep(PAUSE_S)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
