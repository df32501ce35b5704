// A job on a page: its line, its progress, and what can be done about it.

import { getJson, post } from './orthanc.js';
import { canRetry, hasEnded, jobLine } from './words.js';
import { element } from './panels.js';

const POLL_MS = 500;

/** A button that asks for something of a job and then goes on. */
export function jobButton(text, job, action, done) {
  const button = element('button', text, { type: 'button' });
  button.addEventListener('click', async () => {
    button.disabled = true;
    try {
      await post(`/covid/jobs/${job.ID}/${action}`, {});
      done();
    } catch (error) {
      button.replaceWith(element('span', error.message, { role: 'alert' }));
    }
  });
  return button;
}

/** Show a job in an element until it ends; the ended job. */
export async function follow(place, jobId) {
  const line = element('p', '', { role: 'status' });
  const bar = element('progress', '', { max: 100, 'aria-label': 'Progress of the analysis' });
  let cancel;
  place.replaceChildren(line, bar);
  for (;;) {
    const job = await getJson(`/covid/jobs/${jobId}`).catch((error) => {
      if (error.status && error.status < 500) {
        throw error;
      }
      return null;
    });
    if (!job) {
      // Orthanc is busy, or does not answer for a while.
      await new Promise((resolve) => setTimeout(resolve, 4 * POLL_MS));
      continue;
    }
    const text = jobLine(job);
    if (line.textContent !== text) {
      line.textContent = text;
    }
    bar.value = job.Progress;
    if (hasEnded(job)) {
      place.replaceChildren(line);
      if (canRetry(job)) {
        place.append(jobButton('Retry', job, 'retry', () => window.location.reload()));
      }
      return job;
    }
    if (!cancel) {
      cancel = jobButton('Cancel', job, 'cancel', () => cancel.remove());
      place.append(cancel);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
