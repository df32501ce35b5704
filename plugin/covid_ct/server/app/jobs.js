// The dashboard: all analyses, the newest first.

import { OrthancError, getJson, post } from './orthanc.js';
import { element } from './panels.js';
import { jobButton } from './following.js';
import { canRetry, hasEnded, inLine, jobLine, titleOf } from './words.js';

const POLL_MS = 2000;
const MOST_SHOWN = 50;

/** Titles of the studies of series, by Orthanc id of the series. */
const titles = new Map();

const at = (id) => document.getElementById(id);

/** Ask for the titles of series that are not known yet; what is deleted, or not permitted to be seen, has none. */
async function learnTitles(jobs) {
  const unknown = [...new Set(jobs.map((job) => job.Content.Series))].filter((series) => !titles.has(series));
  if (!unknown.length) {
    return;
  }
  try {
    const studies = await post('/tools/bulk-content', { Resources: unknown, Level: 'Study', Metadata: false });
    studies.forEach((study) => {
      study.Series.forEach((series) => titles.set(series, titleOf(study, study.MainDicomTags.StudyDescription)));
    });
  } catch (error) {
    // What failed for a while is asked again.
    if (!(error instanceof OrthancError) || error.status !== 403) {
      throw error;
    }
  }
  unknown.filter((series) => !titles.has(series)).forEach((series) => titles.set(series, []));
}

/** Orthanc's notation of a UTC time as the reader's local time. */
function localTime(text) {
  const iso = text.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d).*$/, '$1-$2-$3T$4:$5:$6Z');
  return new Date(iso).toLocaleString();
}

function actionsOf(job) {
  const actions = [];
  if (job.State === 'Success') {
    actions.push(element('a', 'Results', { href: `results.html?series=${job.Content.Series}` }));
  }
  actions.push(element('a', 'Series', { href: `../../app/explorer.html#series?uuid=${job.Content.Series}` }));
  if (!hasEnded(job)) {
    actions.push(jobButton('Cancel', job, 'cancel', refresh));
  }
  if (canRetry(job)) {
    actions.push(jobButton('Retry', job, 'retry', refresh));
  }
  return actions;
}

/** Whether the results arrived at a destination, in a sentence. */
function deliveryLine({ Destination, State, Attempts, Error }) {
  if (State === 'Success') {
    return `Sent to ${Destination}.`;
  }
  if (State === 'Failure') {
    return `Not sent to ${Destination}. ${Error}`;
  }
  return State === 'Retry'
    ? `Not sent to ${Destination} yet, tried ${Attempts} times. ${Error}`
    : `To be sent to ${Destination}.`;
}

/** A job as an item of the list. */
function describe(job) {
  const item = element('li', '', { class: job.State, id: job.ID });
  const about = element('p', '', { class: 'about' });
  about.append(
    element('span', job.State, { class: 'state' }),
    element('span', localTime(job.CreationTime)),
    element('span', `${job.EffectiveRuntime.toFixed(1)} s`),
    ...(job.Content.Attempts > 1 ? [element('span', `attempt ${job.Content.Attempts}`)] : []),
    element('span', job.Content.SeriesInstanceUID),
  );
  const actions = element('p', '', { class: 'actions' });
  actions.append(...actionsOf(job));
  const deliveries = job.Content.Deliveries.map((delivery) => element('p', deliveryLine(delivery), { class: 'hint' }));
  const title = element('p', '', { class: 'title' });
  title.append(...inLine(titles.get(job.Content.Series)));
  item.append(title, element('p', jobLine(job)), about, ...deliveries);
  if (!hasEnded(job)) {
    const bar = element('progress', '', { max: 100, 'aria-label': 'Progress' });
    bar.value = job.Progress;
    item.append(bar);
  }
  item.append(actions);
  return item;
}

/** Replace only the items that changed, so that the focus and what is read aloud stay where they are. */
function show(jobs) {
  const list = at('jobs');
  const known = new Map([...list.children].map((item) => [item.id, item]));
  const items = jobs.map((job) => {
    const { Timestamp, EffectiveRuntime, ...rest } = job;
    const state = JSON.stringify(rest);
    const old = known.get(job.ID);
    if (old && old.state === state) {
      return old;
    }
    const item = describe(job);
    item.state = state;
    return item;
  });
  if (items.length !== list.children.length || items.some((item, index) => item !== list.children[index])) {
    list.replaceChildren(...items);
  }
}

async function refresh() {
  try {
    const chosen = document.querySelector('#filter :checked').value;
    const [status, jobs] = await Promise.all([
      getJson('/covid/status'),
      getJson(`/covid/jobs?expand&limit=${MOST_SHOWN}&state=${chosen}`),
    ]);
    await learnTitles(jobs);
    show(jobs);
    const counts = Object.entries(status.Jobs).filter(([, count]) => count);
    at('counts').textContent = counts.map(([state, count]) => `${count} ${state}`).join(' · ');
    const wanted = counts.filter(([state]) => !chosen || chosen.split(',').includes(state));
    const earlier = wanted.reduce((sum, [, count]) => sum + count, 0) - jobs.length;
    at('rest').textContent = earlier > 0 ? `${earlier} earlier ones are not shown.` : '';
    at('rest').textContent ||= jobs.length ? '' : 'There are none.';
    at('problem').hidden = true;
  } catch (error) {
    at('problem').textContent = error.message;
    at('problem').hidden = false;
  }
}

async function main() {
  at('filter').addEventListener('change', refresh);
  for (;;) {
    if (!document.hidden) {
      await refresh();
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

main();
