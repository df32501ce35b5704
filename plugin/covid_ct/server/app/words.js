// How findings, jobs and results are worded, in Orthanc Explorer and on the pages alike.

const RESULTS = {
  report: 'Report (PDF)',
  overlay: 'Overlay',
  lungs: 'Lungs (SEG)',
  lesions: 'Lesions (SEG)',
  measurements: 'Measurements (SR)',
};

/** A DICOM date as people write it. */
export function dateText(date) {
  return /^\d{8}$/.test(date || '') ? `${date.slice(0, 4)}-${date.slice(4, 6)}-${date.slice(6)}` : 'no date';
}

/** The parts of a DICOM name, in each of its scripts. */
function nameText(name) {
  return name.split('=').map((script) => script.replaceAll('^', ' ').trim()).filter(Boolean).join(' / ');
}

/**
 * Parts of a line, of which each stays in its place: right-to-left writing, as of an Arabic name, would else turn the
 * numbers beside it around.
 */
export function inLine(parts) {
  return parts.filter(Boolean).flatMap((part, index) => {
    const isolated = document.createElement('bdi');
    isolated.textContent = part.replaceAll(/[\u202a-\u202e\u2066-\u2069]/g, ''); // what would end the isolation
    return index ? [' · ', isolated] : [isolated];
  });
}

/** Whose study it is, of when, and what was made: parts of a line. */
export function titleOf(study, description) {
  const { PatientName, PatientID } = study.PatientMainDicomTags;
  return [nameText(PatientName || ''), PatientID, dateText(study.MainDicomTags.StudyDate), description];
}

/** A number with so many decimals, digit for digit as the report's: of two that are as near, the even one. */
function fixed(value, decimals) {
  const text = value.toFixed(decimals); // of two, the larger one
  const between = (value * 2 ** (decimals + 1)) % 2 === 1;
  return between && text.at(-1) % 2 ? (value - 0.5 * 10 ** -decimals).toFixed(decimals) : text;
}

// The report words these three in the same way, in covid_ct/results/wording.py.

/** A ratio (0-1) as percent; what is there but rounds to nothing is said so. */
export function percent(ratio) {
  return ratio > 0 && ratio < 0.001 ? '< 0.1 %' : `${fixed(100 * ratio, 1)} %`;
}

/** A volume in ml, with a decimal below 10 ml. */
export function milliliters(volume) {
  return volume > 0 && volume < 0.1 ? '< 0.1 ml' : `${fixed(volume, volume < 10 ? 1 : 0)} ml`;
}

/** A probability; never a certainty that no network has. */
export function probability(value) {
  if (value < 0.01) {
    return '< 0.01';
  }
  return value > 0.99 ? '> 0.99' : fixed(value, 2);
}

/** The findings of a series in a line. */
export function findingsLine(findings) {
  const lesions = findings.lesion_to_lung_ratio.total;
  const share = lesions > 0 ? `Lesions ${percent(lesions)} of lung` : 'No lesion found';
  return `${share}, COVID-19 probability ${probability(findings.covid_probability)}, research use only`;
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

/** What a result is: the first word of its kind, such as lungs of lungs.seg. */
export function subject(result) {
  return result.Kind.split('.')[0];
}

/**
 * Links to results, for people: name and path. The report is read as PDF, all else on its page of Orthanc Explorer;
 * the pictures of the overlay, which are one series, have one link.
 */
export function resultLinks(results) {
  return Object.entries(RESULTS).flatMap(([name, text]) => {
    const result = results.find((one) => subject(one) === name);
    if (!result) {
      return [];
    }
    const paths = {
      report: `/instances/${result.ID}/pdf`,
      overlay: `/app/explorer.html#series?uuid=${result.ParentSeries}`,
    };
    return [{ text, path: paths[name] || `/app/explorer.html#instance?uuid=${result.ID}` }];
  });
}

/** The sentence in an error answer of Orthanc or of ours. */
export function problem(status, body) {
  if (status === 0) {
    return 'Orthanc does not answer.';
  }
  if (status === 401 || status === 403) {
    return 'Orthanc does not permit this; log in with sufficient rights.';
  }
  // Orthanc's own "Unknown resource" is no sentence; the plugin's answers are.
  if (status === 404 && (body.includes('"OrthancStatus"') || !body.includes('"Message"'))) {
    return 'Orthanc does not hold this.';
  }
  try {
    return JSON.parse(body).Message || `Orthanc answers with status ${status}.`;
  } catch (error) {
    return `Orthanc answers with status ${status}.`;
  }
}
