// What stands beside the picture: numbers, lesions, earlier analyses, results, models.

import { address, getBytes, getJson, orNull } from './orthanc.js';
import { dateText, milliliters, percent, probability, resultLinks } from './words.js';

const MOST_LESIONS = 20;

const SIDES = ['total', 'right', 'left'];

const MEASURES = [
  ['Lung volume', 'lung_volume_ml', null],
  ['Lesions', 'lesion_volume_ml', 'lesion_to_lung_ratio'],
  ['Ground glass', 'ground_glass_volume_ml', 'ground_glass_to_lung_ratio'],
  ['Consolidation', 'consolidation_volume_ml', 'consolidation_to_lung_ratio'],
];

const THIRDS = [['upper', 'Upper third'], ['middle', 'Middle third'], ['lower', 'Lower third']];

const ROLES = { lungs: 'Lungs', lesions: 'Lesions', covid: 'COVID-19 probability' };

export function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}

export function reveal(id) {
  document.getElementById(id).hidden = false;
}

function fill(id, children) {
  document.getElementById(id).replaceChildren(...children);
}

function row(name, cells) {
  const made = element('tr', '');
  made.append(element('th', name, { scope: 'row' }), ...cells);
  return made;
}

function link(text, path) {
  return element('a', text, { href: address(path), target: '_blank', rel: 'noopener' });
}

function item(...content) {
  const made = element('li', '');
  made.append(...content);
  return made;
}

/** Volumes and shares of the lung, in total and for each lung. */
export function showNumbers(findings) {
  const measures = MEASURES.map(([name, volume, ratio]) =>
    row(name, SIDES.map((side) => {
      const cell = element('td', milliliters(findings[volume][side]));
      if (ratio) {
        cell.append(element('span', percent(findings[ratio][side])));
      }
      return cell;
    })),
  );
  const thirds = THIRDS.map(([third, name]) =>
    row(`Lesions, ${name.toLowerCase()}`, [
      element('td', ''),
      ...['right', 'left'].map((side) => {
        const share = findings.lesion_to_lung_ratio_of_thirds[side];
        return element('td', share ? percent(share[third]) : '');
      }),
    ]),
  );
  fill('measurements', [...measures, ...thirds]);
  reveal('numbers');
}

/** Lesions, the largest first, each a button that leads to its slice. */
export function showLesions(findings, viewer) {
  const lesions = [...findings.lesions].sort((a, b) => b.volume_ml - a.volume_ml);
  if (!lesions.length) {
    return;
  }
  fill('lesions', lesions.slice(0, MOST_LESIONS).map((lesion) => {
    const side = lesion.side === 'right' ? 'Right' : 'Left';
    const index = viewer.stack.sliceOf(lesion, findings);
    const text = `${side} lung, ${milliliters(lesion.volume_ml)}, ${viewer.stack.name(index)}`;
    const button = element('button', text, { type: 'button', 'data-index': index });
    button.addEventListener('click', () => viewer.goTo(index));
    return item(button);
  }));
  const rest = lesions.slice(MOST_LESIONS);
  const volume = rest.reduce((sum, lesion) => sum + lesion.volume_ml, 0);
  document.getElementById('smaller').textContent = rest.length
    ? `and ${rest.length} smaller, ${milliliters(volume)} together`
    : '';
  reveal('lesion-list');
}

export function markLesions(index) {
  document.querySelectorAll('#lesions button').forEach((button) => {
    button.setAttribute('aria-current', Number(button.dataset.index) === index);
  });
}

export function showNotes(findings) {
  fill('warnings', findings.warnings.map((warning) => element('li', warning)));
  fill('models', findings.models.map((model) =>
    item(
      element('strong', `${ROLES[model.role]}: ${model.name} ${model.version}`),
      element('span', model.accuracy),
      element('code', `sha256 ${model.sha256.slice(0, 12)}…, ${model.provider}`, { title: model.sha256 }),
    ),
  ));
  reveal('made-by');
}

/** Orthanc's OHIF plugin is asked for a study in the way of its DataSource, which only its app-config.js tells. */
async function ohifPath(study) {
  const config = await orNull(getBytes('/ohif/app-config.js'));
  const usesDicomWeb = config && new TextDecoder().decode(config).includes('if (true)');
  return usesDicomWeb
    ? `/ohif/viewer?StudyInstanceUIDs=${study.MainDicomTags.StudyInstanceUID}`
    : `/ohif/viewer?url=../studies/${study.ID}/ohif-dicom-json`;
}

/** Where the installed viewers show a study; the paths are those of Orthanc's plugins. */
const VIEWERS = {
  ohif: ['OHIF', ohifPath],
  'stone-webviewer': ['Stone', (study) => `/stone-webviewer/index.html?study=${study.MainDicomTags.StudyInstanceUID}`],
  volview: ['VolView', (study) => `/volview/index.html?names=[archive.zip]&urls=[../studies/${study.ID}/archive]`],
};

export async function showLinks(findings, study) {
  const results = resultLinks(findings.Results).map(({ text, path }) => item(link(text, path)));
  fill('results', results);
  reveal('links');
  const plugins = await getJson('/plugins');
  const viewers = await Promise.all(
    plugins
      .filter((name) => name in VIEWERS)
      .map(async (name) => item(link(`Open in ${VIEWERS[name][0]}`, await VIEWERS[name][1](study)))),
  );
  fill('results', [...results, ...viewers]);
}

/** All analyses of a patient, the earliest first, as a curve and as a table. */
export async function showHistory(patient, current) {
  const [studies, allSeries] = await Promise.all([
    getJson(`/patients/${patient}/studies?expand`),
    getJson(`/patients/${patient}/series?expand`),
  ]);
  const tagsOfStudy = new Map(studies.map((study) => [study.ID, study.MainDicomTags]));
  const analyses = await Promise.all(
    allSeries
      .filter((series) => series.MainDicomTags.Modality === 'CT')
      .map(async (series) => {
        const { StudyDate, StudyTime } = tagsOfStudy.get(series.ParentStudy);
        const findings = await orNull(getJson(`/covid/series/${series.ID}`));
        const description = series.MainDicomTags.SeriesDescription || '';
        return { id: series.ID, date: StudyDate || '', time: StudyTime || '', description, findings };
      }),
  );
  const known = analyses
    .filter((analysis) => analysis.findings)
    .sort((a, b) => (a.date + a.time < b.date + b.time ? -1 : 1));
  if (known.length < 2) {
    return;
  }
  fill('analyses', known.map((analysis) => {
    const here = analysis.id === current;
    const date = dateText(analysis.date);
    const last = element('td', here ? 'this one' : '');
    if (!here) {
      const label = `Show the analysis of ${date}, ${analysis.description || 'no description'}`;
      last.append(element('a', 'show', { href: `results.html?series=${analysis.id}`, 'aria-label': label }));
    }
    const made = row(date, [
      element('td', percent(analysis.findings.lesion_to_lung_ratio.total)),
      element('td', probability(analysis.findings.covid_probability)),
      last,
    ]);
    made.firstChild.append(element('span', analysis.description)); // a study may have several series
    return made;
  }));
  document.getElementById('curve').replaceChildren(curve(known, current));
  reveal('history');
}

function shape(name, attributes, text = '') {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  made.textContent = text;
  return made;
}

/** More points of the curve than this have no room for their numbers. */
const MOST_LABELLED = 6;

/** Lesions in percent of the lung over time; the table beside it says the same. */
function curve(analyses, current) {
  const [width, height, margin] = [320, 110, 22];
  const days = analyses.map(({ date }) => Date.parse(dateText(date)) / 86400000 || 0);
  const shares = analyses.map(({ findings }) => findings.lesion_to_lung_ratio.total);
  const [start, span] = [Math.min(...days), Math.max(...days) - Math.min(...days)];
  const top = Math.max(...shares, 0.001);
  const points = analyses.map((analysis, i) => ({
    // Where all lie on one day they stand side by side.
    x: margin + (width - 2 * margin) * (span ? (days[i] - start) / span : i / (analyses.length - 1)),
    y: height - margin - (height - 2 * margin) * (shares[i] / top),
    here: analysis.id === current,
    text: percent(shares[i]),
  }));
  const drawing = shape('svg', { viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' });
  drawing.append(
    shape('line', { x1: margin, x2: width - margin, y1: height - margin, y2: height - margin, class: 'axis' }),
    shape('polyline', { points: points.map(({ x, y }) => `${x},${y}`).join(' ') }),
    ...points.map(({ x, y, here }) => shape('circle', { cx: x, cy: y, r: here ? 5 : 3.5, class: here ? 'here' : '' })),
    ...points
      .filter(({ here }) => here || points.length <= MOST_LABELLED)
      .map(({ x, y, text }) => shape('text', { x, y: y - 8, 'text-anchor': 'middle' }, text)),
    shape('text', { x: margin, y: height - 6 }, dateText(analyses[0].date)),
    shape('text', { x: width - margin, y: height - 6, 'text-anchor': 'end' }, dateText(analyses.at(-1).date)),
  );
  return drawing;
}
