// "Analyze for COVID-19" on the series and study pages of Orthanc Explorer (version 1, jQuery Mobile).
// Orthanc serves this as /plugins/explorer.js; everything is asked for relative to it, as Orthanc may have a prefix.
(function () {
  'use strict';

  const POLL_MS = 500;
  const words = import('../covid/app/words.js');

  // Counts the pages shown, so that what was begun for an earlier one ends.
  let shown = 0;
  let shownUuid;

  /** Ask Orthanc by jQuery, to whose requests Explorer adds the authorization tokens of its own address. */
  async function ask(method, path, body) {
    const { problem } = await words;
    return new Promise((resolve, reject) => {
      $.ajax({
        url: `..${path}`,
        type: method,
        dataType: 'json',
        contentType: 'application/json',
        data: body && JSON.stringify(body),
        cache: method !== 'GET',
        success: resolve,
        error: (answer) => {
          const failure = new Error(problem(answer.status, answer.responseText));
          failure.status = answer.status;
          reject(failure);
        },
      });
    });
  }

  function pause() {
    return new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }

  function element(name, text) {
    const made = document.createElement(name);
    made.textContent = text || '';
    return made;
  }

  function button(text, act) {
    const made = element('a', text);
    made.href = '#';
    made.setAttribute('role', 'button');
    made.addEventListener('click', (event) => {
      event.preventDefault();
      event.stopPropagation();
      act();
    });
    $(made).buttonMarkup({ inline: true, mini: true, theme: 'c' });
    return made;
  }

  function link(text, path) {
    const made = element('a', text);
    if (path.startsWith('/app/explorer.html#')) {
      made.href = path.slice('/app/explorer.html'.length);
    } else {
      made.href = `..${path}`;
      made.target = '_blank';
      made.rel = 'external noopener';
    }
    made.style.display = 'inline-block';
    made.style.marginRight = '1.2em';
    return made;
  }

  /** A box on the page that tells of one analysis, under a heading of several parts. */
  function addBox(panel, heading) {
    const box = element('div');
    box.className = 'covid-analysis ui-body ui-body-d ui-corner-all';
    box.style.marginBottom = '0.6em';
    box.style.overflowWrap = 'anywhere';
    const line = element('p');
    line.setAttribute('role', 'status');
    const bar = element('progress');
    bar.max = 100;
    bar.style.width = '100%';
    bar.setAttribute('aria-label', 'Progress of the analysis');
    const more = element('p');
    const title = element('strong');
    words.then(({ inLine }) => title.append(...inLine(heading)));
    box.append(title, line, bar, more);
    panel.append(box);
    return { box, line, bar, more };
  }

  /** Fill a box. Only what changes is touched: screen readers read each change, and a button keeps its focus. */
  function fill(box, sentence, progress, more) {
    if (box.line.textContent !== sentence) {
      box.line.textContent = sentence;
    }
    box.bar.hidden = progress === null;
    box.bar.value = progress || 0;
    if (more.length !== box.more.children.length || more.some((one, index) => one !== box.more.children[index])) {
      box.more.replaceChildren(...more);
    }
  }

  async function showFindings(box, series, line, results) {
    const { resultLinks } = await words;
    const links = resultLinks(results).map(({ text, path }) => link(text, path));
    fill(box, line, null, [link('Results page', `/covid/app/results.html?series=${series}`), ...links]);
  }

  /** Show a job until it ends, or another page is shown. */
  async function follow(box, jobId) {
    const { canRetry, hasEnded, jobLine } = await words;
    const page = shown;
    const act = (name, action) =>
      button(name, () => {
        fill(box, 'Asking …', null, []);
        ask('POST', `/covid/jobs/${jobId}/${action}`, {}).then(
          () => follow(box, jobId),
          (failure) => fill(box, failure.message, null, []),
        );
      });
    const cancel = act('Cancel', 'cancel');
    while (page === shown) {
      const job = await ask('GET', `/covid/jobs/${jobId}`).catch((failure) => failure);
      if (job instanceof Error) {
        fill(box, job.message, null, []);
        if (job.status !== 0) {
          return;
        }
      } else if (job.State === 'Success') {
        showFindings(box, job.Content.Series, jobLine(job), job.Content.Results);
        return;
      } else if (hasEnded(job)) {
        fill(box, jobLine(job), null, canRetry(job) ? [act('Retry', 'retry')] : []);
        return;
      } else {
        fill(box, jobLine(job), job.Progress, [cancel]);
      }
      await pause();
    }
  }

  /** Show what there already is of a series. */
  async function showEarlier(panel, series, heading) {
    const page = shown;
    const { findingsLine } = await words;
    const jobs = await ask('GET', `/covid/jobs?expand&limit=1&series=${series}`).catch(() => []);
    if (page !== shown) {
      return;
    }
    if (jobs.length) {
      follow(addBox(panel, heading), jobs[0].ID);
      return;
    }
    const findings = await ask('GET', `/covid/series/${series}`).catch(() => null);
    if (findings && page === shown) {
      showFindings(addBox(panel, heading), series, findingsLine(findings), findings.Results);
    }
  }

  const HEADING = ['COVID-19 analysis'];

  /** The heading of one series of several. */
  function headingOf(series) {
    const { SeriesNumber, SeriesDescription } = series.MainDicomTags;
    return [`Series ${SeriesNumber || ''}`.trim(), SeriesDescription];
  }

  const levels = {
    series: {
      key: 'Series',
      analyzed: async (uuid, answer) => [{ job: answer.ID, heading: HEADING }],
      earlier: async (uuid) => [{ series: uuid, heading: HEADING }],
    },
    study: {
      key: 'Study',
      async analyzed(uuid, answer) {
        const series = await ask('GET', `/studies/${uuid}/series?expand`);
        const headings = new Map(series.map((one) => [one.ID, headingOf(one)]));
        const jobs = await Promise.all(answer.map((one) => ask('GET', one.Path)));
        return jobs.map((job) => ({ job: job.ID, heading: headings.get(job.Content.Series) || HEADING }));
      },
      async earlier(uuid) {
        const series = await ask('GET', `/studies/${uuid}/series?expand`);
        return series
          .filter((one) => one.MainDicomTags.Modality === 'CT')
          .map((one) => ({ series: one.ID, heading: headingOf(one) }));
      },
    },
  };

  async function analyze(level, uuid, panel) {
    const page = shown;
    panel.replaceChildren();
    const asking = addBox(panel, HEADING);
    fill(asking, 'Asking …', null, []);
    try {
      const answer = await ask('POST', '/covid/analyze', { [level.key]: uuid });
      const analyses = await level.analyzed(uuid, answer);
      if (page !== shown) {
        return;
      }
      if (!analyses.length) {
        fill(asking, 'No series of this study can be analysed. The page of a series tells why.', null, []);
        return;
      }
      asking.box.remove();
      for (const { job, heading } of analyses) {
        follow(addBox(panel, heading), job);
      }
    } catch (failure) {
      fill(asking, failure.message, null, []);
    }
  }

  /** Tell on the page of a series or study what there already is of it. */
  async function show(name) {
    shown += 1;
    const page = shown;
    shownUuid = ($.mobile.pageData || {}).uuid;
    const panel = $(`#${name}-covid-analyses`)[0];
    panel.replaceChildren();
    const analyses = shownUuid ? await levels[name].earlier(shownUuid) : [];
    for (const { series, heading } of analyses) {
      if (page === shown) {
        await showEarlier(panel, series, heading);
      }
    }
  }

  for (const name of Object.keys(levels)) {
    const level = levels[name];

    $(document).on('pagebeforecreate', `#${name}`, () => {
      const list = $(`
        <ul data-role="listview" data-inset="true" data-theme="d" data-divider-theme="c">
          <li data-role="list-divider">COVID-19</li>
          <li data-icon="search"><a href="#" id="${name}-covid-analyze">Analyze for COVID-19</a></li>
          <li data-icon="grid"><a href="../covid/app/jobs.html" rel="external" target="_blank">All analyses</a></li>
        </ul>
        <div id="${name}-covid-analyses"></div>`);
      list.insertAfter(`#${name}-info`);
    });

    $(document).on('click', `#${name}-covid-analyze`, (event) => {
      event.preventDefault();
      analyze(level, $.mobile.pageData.uuid, $(`#${name}-covid-analyses`)[0]);
    });

    $(document).on('pagebeforeshow', `#${name}`, () => show(name));
    $(document).on('pagebeforehide', `#${name}`, () => {
      shown += 1;
    });
  }

  // Going from one series to another, say by the back button, shows no new page.
  $(() => {
    $(window).on('hashchange', () => {
      const { active, uuid } = $.mobile.pageData || {};
      if (active in levels && uuid !== shownUuid) {
        show(active);
      }
    });
  });
})();
