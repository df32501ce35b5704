// How findings, jobs and results are worded, in Orthanc Explorer and on the pages alike.

export const NOTICE = 'For research and teaching use only. Not for diagnosis.';

const RESULTS = {
  'report.pdf': 'Report (PDF)',
  'lungs.seg': 'Lungs (SEG)',
  'lesions.seg': 'Lesions (SEG)',
  'measurements.sr': 'Measurements (SR)',
  'overlay.sc': 'Overlay',
};

/** A ratio (0-1) as percent; small lesions keep a second digit. */
export function percent(ratio) {
  const value = 100 * ratio;
  return `${value.toFixed(value > 0 && value < 1 ? 2 : 1)} %`;
}

/** The findings of a series in a line. */
export function findingsLine(findings) {
  const lesions = findings.lesion_to_lung_ratio.total;
  const share = lesions > 0 ? `Lesions ${percent(lesions)} of lung` : 'No lesion found';
  return `${share}, COVID-19 probability ${findings.covid_probability.toFixed(2)}, research use only`;
}

/** What a job is doing, or how it ended, in a sentence. */
export function jobLine(job) {
  const stage = job.Content.Stage;
  switch (job.State) {
    case 'Success':
      return findingsLine(job.Content.Findings);
    case 'Failure':
      return job.ErrorDescription;
    case 'Retry':
      return `It will be tried again. ${job.ErrorDescription}`;
    case 'Pending':
      return 'Waiting for its turn';
    default:
      return `${stage.charAt(0).toUpperCase()}${stage.slice(1)}, ${job.Progress} %`;
  }
}

export function hasEnded(job) {
  return job.State === 'Success' || job.State === 'Failure';
}

/** Whether trying a failed job again can be of use: not where the series itself is at fault. */
export function canRetry(job) {
  return job.State === 'Failure' && job.ErrorDetails !== 'BadFileFormat';
}

/** Name of a result for people. */
export function resultName(result) {
  return RESULTS[result.Kind] || result.Kind;
}

/** Where a result is read: the report as PDF, anything else on its page of Orthanc Explorer. */
export function resultPath(result) {
  return result.Kind.endsWith('.pdf') ? `/instances/${result.ID}/pdf` : `/app/explorer.html#instance?uuid=${result.ID}`;
}

/** The sentence in an error answer of Orthanc or of ours. */
export function problem(status, body) {
  if (status === 0) {
    return 'Orthanc does not answer.';
  }
  if (status === 401 || status === 403) {
    return 'Orthanc does not permit this; log in with sufficient rights.';
  }
  try {
    return JSON.parse(body).Message || `Orthanc answers with status ${status}.`;
  } catch (error) {
    return `Orthanc answers with status ${status}.`;
  }
}
