// The results page of a series: results.html?series={Orthanc id}.

import { follow } from './following.js';
import { address, getJson, post } from './orthanc.js';
import * as panels from './panels.js';
import { COLORS, Segmentation } from './segmentation.js';
import { asked } from './series.js';
import { Stack } from './stack.js';
import { WINDOWS, Viewer } from './viewer.js';
import { findingsLine, inLine, subject, titleOf } from './words.js';

const KEYS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e6, End: 1e6 };

const at = (id) => document.getElementById(id);

function say(sentence) {
  at('answer').textContent = sentence;
}

function showTitle(study, series) {
  at('patient').replaceChildren(...inLine(titleOf(study, series.MainDicomTags.SeriesDescription)));
  at('explorer').href = address(`/app/explorer.html#series?uuid=${series.ID}`);
  at('explorer').hidden = false;
}

/** Draw how much of each slice the lesions take, from head to feet, under the picture. */
function drawProfile(stack, segmentations) {
  const canvas = at('profile');
  const kinds = ['consolidation', 'ground-glass'];
  const areas = stack.slices.map(({ uid }) =>
    kinds.map((kind) => segmentations.reduce((sum, segmentation) => sum + segmentation.area(uid, kind), 0)),
  );
  const top = Math.max(1, ...areas.map(([dense, glass]) => dense + glass));
  canvas.width = stack.length;
  const context = canvas.getContext('2d');
  areas.forEach((area, index) => {
    let y = canvas.height;
    area.forEach((pixels, kind) => {
      const height = (canvas.height * pixels) / top;
      context.fillStyle = `rgb(${COLORS[kinds[kind]].join()})`;
      context.fillRect(stack.flip(index), y - height, 1, height);
      y -= height;
    });
  });
}

/** What stands around the picture, each time another slice is looked at or drawn. */
function showPlace(viewer, index, slice) {
  const { stack } = viewer;
  const { z } = stack.slices[index];
  const where = `Slice ${viewer.place + 1} of ${stack.length}`;
  at('where').textContent = [where, stack.name(index), ...(z === null ? [] : [`z ${z.toFixed(1)} mm`])].join('\n');
  at('slice').value = viewer.place;
  at('slice').setAttribute('aria-valuetext', where);
  at('picture').setAttribute('aria-label', `CT, ${where.toLowerCase()}, ${viewer.window} window`);
  at('window-values').textContent = `W ${WINDOWS[viewer.window][1]}  L ${WINDOWS[viewer.window][0]}`;
  at('wait').hidden = Boolean(slice && slice.hu);
  at('wait').textContent = slice instanceof Error ? `This slice cannot be shown. ${slice.message}` : 'Loading …';
  showHu(viewer);
  panels.markLesions(index);
}

function showHu(viewer) {
  at('hu').textContent = viewer.hu === undefined ? '' : `${viewer.hu} HU`;
}

function toggleOverlay(viewer) {
  const boxes = [...document.querySelectorAll('#layers [type=checkbox]')];
  const visible = !boxes.some((box) => box.checked);
  boxes.forEach((box) => {
    box.checked = visible;
    viewer.setVisible(box.value, visible);
  });
}

function listen(viewer) {
  at('slice').addEventListener('input', (event) => viewer.goTo(viewer.stack.flip(Number(event.target.value))));
  at('opacity').addEventListener('input', (event) => viewer.setOpacity(Number(event.target.value) / 100));
  at('windows').addEventListener('change', (event) => {
    viewer.window = event.target.value;
  });
  at('layers').addEventListener('change', (event) => {
    if (event.target.type === 'checkbox') {
      viewer.setVisible(event.target.value, event.target.checked);
    }
  });
  at('profile').addEventListener('click', (event) => {
    const box = at('profile').getBoundingClientRect();
    viewer.goTo(viewer.stack.flip(Math.floor(((event.clientX - box.left) / box.width) * viewer.stack.length)));
  });
  at('picture').addEventListener('pointermove', () => showHu(viewer));
  at('picture').addEventListener('pointerleave', () => showHu(viewer));
  document.addEventListener('keydown', (event) => {
    // The slider of slices goes as the keys go elsewhere; by itself, "down" would lead to the head.
    const writing = event.target.matches('input:not([type=checkbox]):not(#slice)');
    if (writing || event.ctrlKey || event.altKey || event.metaKey) {
      return;
    }
    // Who reads on below the list of lesions scrolls the page.
    const reading = event.target.closest('.findings') && !event.target.closest('#lesions');
    if (event.key in KEYS && !reading) {
      event.preventDefault();
      viewer.step(KEYS[event.key]);
    } else if (Object.keys(WINDOWS)[event.key - 1]) {
      const name = Object.keys(WINDOWS)[event.key - 1];
      document.querySelector(`#windows [value=${name}]`).checked = true;
      viewer.window = name;
    } else if (event.key.toLowerCase() === 'o') {
      toggleOverlay(viewer);
    }
  });
}

function showPicture(instances, findings) {
  const stack = new Stack(instances);
  const viewer = new Viewer(at('picture'), stack, (index, slice) => showPlace(viewer, index, slice));
  Object.entries(stack.marks).forEach(([edge, letters]) => {
    at(`mark-${edge}`).textContent = letters;
  });
  at('slice').max = stack.length - 1;
  listen(viewer);
  panels.reveal('viewer');
  const lesions = findings ? [...findings.lesions].sort((a, b) => b.volume_ml - a.volume_ml) : [];
  viewer.goTo(lesions.length ? stack.sliceOf(lesions[0], findings) : Math.floor(stack.length / 2));
  return viewer;
}

async function showOverlay(viewer, findings) {
  const wanted = findings.Results.filter((result) => ['lungs', 'lesions'].includes(subject(result)));
  const segmentations = await Promise.all(wanted.map((result) => Segmentation.load(result.ID)));
  segmentations.forEach((segmentation) => viewer.addSegmentation(segmentation));
  drawProfile(viewer.stack, segmentations);
  at('picture').dataset.segmentations = segmentations.length;
}

/** Tell how far the analysis of a series is that has no findings as it is now, or offer it. */
async function showJob(series, notices) {
  const place = at('job');
  const showEnd = async (id) => {
    const job = await follow(place, id);
    if (job.State === 'Success') {
      window.location.reload();
    }
  };
  const [job] = await getJson(`/covid/jobs?expand&limit=1&series=${series}`);
  if (job && job.State !== 'Success') {
    await showEnd(job.ID);
    return;
  }
  const button = panels.element('button', 'Analyze for COVID-19', { type: 'button' });
  place.replaceChildren(...notices, button);
  button.addEventListener('click', () => {
    button.disabled = true;
    post('/covid/analyze', { Series: series })
      .then((answer) => showEnd(answer.ID))
      .catch((error) => place.replaceChildren(panels.element('p', error.message, { role: 'alert' })));
  });
}

async function showFindings(findings, viewer, study, series) {
  say(findingsLine(findings));
  panels.showNumbers(findings);
  panels.showLesions(findings, viewer);
  panels.markLesions(viewer.index);
  panels.showNotes(findings);
  await viewer.painted; // what follows would delay the first picture
  const { stack } = viewer;
  const drawn = await Promise.allSettled([showOverlay(viewer, findings).finally(() => viewer.loader.loadAhead())]);
  const others = [panels.showLinks(findings, study), panels.showHistory(study.ParentPatient, series)];
  if (!stack.isOf(findings)) {
    const sentence = `These findings are of ${findings.slices} images; the series has ${stack.length} now.`;
    others.push(showJob(series, [panels.element('p', sentence, { role: 'alert' })]));
  }
  // One that fails, as where a result was deleted, keeps no other.
  const failed = [...drawn, ...(await Promise.allSettled(others))].find(({ reason }) => reason);
  if (failed) {
    throw failed.reason;
  }
}

async function main() {
  if (!asked) {
    say('This page shows a series: add ?series= and its Orthanc identifier to the address.');
    return;
  }
  const [series, study, instances, findings] = await asked;
  showTitle(study, series);
  const viewer = showPicture(instances, findings);
  if (findings) {
    await showFindings(findings, viewer, study, series.ID);
  } else {
    viewer.loader.loadAhead();
    say('This series has no findings.');
    await showJob(series.ID, []);
  }
}

main().catch((error) => {
  at('job').append(panels.element('p', error.message, { role: 'alert' }));
  if (at('answer').textContent === 'Loading …') {
    say('');
  }
});
