"""What Orthanc reads as its configuration is read here too, and nothing else."""

from pathlib import Path

import pytest

from tools.orthanc_configuration import ConfigurationFilesError, read_json_with_comments
from tools.orthanc_server import OrthancServer

TOLERATED = b"""\xef\xbb\xbf{ // \xfcber Latin-1
  "Name": "a\tb, // no comment, ${COVID_CT_A:-'by default'}${COVID_CT_B:-} ,}", /* one, */
  "HttpPort": ${COVID_CT_PORT:-8042},
  "DicomPort": @dicom@, "StorageDirectory": "@storage@", "IndexDirectory": "@storage@",
  "DicomModalities": {"a": ["A", "192.0.2.1", 104,], },  // last
}
"""


class TolerantOrthanc(OrthancServer):
    """An Orthanc with a configuration as people write them."""

    def write_configuration(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        path = self.folder / "orthanc.json"
        text = TOLERATED.replace(b"@dicom@", str(self.dicom_port).encode())
        path.write_bytes(text.replace(b"@storage@", str(self.storage).encode()))
        return path


def test_what_orthanc_reads_is_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orthanc = TolerantOrthanc(tmp_path / "run")
    monkeypatch.setenv("COVID_CT_PORT", str(orthanc.http_port))
    with orthanc:
        system = orthanc.get("/system")
        assert list(orthanc.get("/modalities")) == ["a"]
    read = read_json_with_comments(orthanc.write_configuration())
    assert read["Name"] == system["Name"] == "a\tb, // no comment, by default ,}"
    assert read["HttpPort"] == system["HttpPort"] == orthanc.http_port
    assert read["DicomModalities"] == {"a": ["A", "192.0.2.1", 104]}


@pytest.mark.parametrize("content", ['{"Name": "x",, "HttpPort": 1}', "{'Name': 'x'}", '{"Name": "x"', '{"a": [1,,]}'])
def test_what_orthanc_refuses_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "orthanc.json"
    file.write_text(content)
    with pytest.raises(ConfigurationFilesError, match=f"{file} cannot be read"):
        read_json_with_comments(file)


def test_a_variable_that_is_set_for_orthanc_only_is_named(tmp_path: Path) -> None:
    file = tmp_path / "orthanc.json"
    file.write_text('{"HttpPort": ${COVID_CT_PORT}}')
    with pytest.raises(ConfigurationFilesError, match="variables that are not set here: COVID_CT_PORT"):
        read_json_with_comments(file)
