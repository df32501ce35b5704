"""The report as the DICOM object that carries it."""

from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import EncapsulatedPDFStorage

from covid_ct.analysis.findings import Findings
from covid_ct.results.explicit_vr import set_sequence
from covid_ct.results.report import TITLE, report_pdf
from covid_ct.results.source import new_result, reference
from covid_ct.results.uids import ResultUids
from covid_ct.series.volume import Volume

NAME = "report.pdf"
_RADIOLOGY_REPORT = Code("18782-3", "LN", "Radiology Study observation (narrative)")


def encapsulated_report(volume: Volume, findings: Findings, uids: ResultUids) -> Dataset:
    """The report as a DICOM encapsulated PDF.

    Parameters
    ----------
    volume: Volume
    findings: Findings
    uids: ResultUids

    Returns
    -------
    Dataset
    """
    header = volume.headers[0]
    result = new_result(
        header,
        uids,
        NAME,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        series_number=9003,
        series_description="COVID-19 CT: report (research use only)",
    )
    pdf = report_pdf(volume, findings)
    result.ConversionType = "WSD"
    result.AcquisitionDateTime = result.ContentDate + result.ContentTime
    result.BurnedInAnnotation = "YES"
    result.DocumentTitle = TITLE
    result.ConceptNameCodeSequence = [CodedConcept.from_code(_RADIOLOGY_REPORT)]
    set_sequence(result, "SourceInstanceSequence", map(reference, volume.headers))
    result.MIMETypeOfEncapsulatedDocument = "application/pdf"
    result.EncapsulatedDocumentLength = len(pdf)
    result.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    return result
