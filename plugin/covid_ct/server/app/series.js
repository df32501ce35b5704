// The series that the results page is about, asked for while most scripts of the page are still on their way.

import { getJson, orNull } from './orthanc.js';

const ORTHANC_ID = /^[0-9a-f]{8}(-[0-9a-f]{8}){4}$/;

const id = new URLSearchParams(window.location.search).get('series') || '';

/** Series, study, instances and findings (null without); undefined where the address names no series. */
export const asked = ORTHANC_ID.test(id)
  ? Promise.all([
    getJson(`/series/${id}`),
    getJson(`/series/${id}/study`),
    getJson(`/series/${id}/instances?expand`),
    orNull(getJson(`/covid/series/${id}`)),
  ])
  : undefined;

asked?.catch(() => {}); // told of by whoever waits for it, which may be later
