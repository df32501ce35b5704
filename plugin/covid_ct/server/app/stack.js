// A series of images as a stack of slices: their order, how they lie in the patient, and their pixels.

import { getBytes, getJson } from './orthanc.js';

const PARALLEL_REQUESTS = 4;
const MEMORY_BYTES = 384 * 2 ** 20; // slices that are kept; a phone has no more to spare

const ARRAYS = { '|u1': Uint8Array, '<u2': Uint16Array, '<i2': Int16Array, '<f4': Float32Array };

function numbers(text) {
  // In images from Japan (ISO_IR 13) Orthanc gives the backslash between values as a yen sign.
  return (text || '').split(/[\\¥]/).map(Number);
}

function dot(a, b) {
  return a.reduce((sum, value, axis) => sum + value * b[axis], 0);
}

function cross(a, b) {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

/** Letters of a direction in the patient, such as "L" or, between two axes, "LP"; coordinates are DICOM's LPS. */
function letters(direction) {
  const names = ['RL', 'AP', 'FH'];
  return [0, 1, 2]
    .filter((axis) => Math.abs(direction[axis]) > 0.3)
    .sort((a, b) => Math.abs(direction[b]) - Math.abs(direction[a]))
    .map((axis) => names[axis][direction[axis] > 0 ? 1 : 0])
    .join('');
}

/**
 * How an image is turned to the standard axial view: screen = turn x image, both (right, down).
 * Anything but an axial image is left as it is.
 */
function turnOf(row, column) {
  const normal = cross(row, column).map(Math.abs);
  if (normal[2] < Math.max(normal[0], normal[1])) {
    return [[1, 0], [0, 1]];
  }
  return Math.abs(row[0]) >= Math.abs(row[1])
    ? [[Math.sign(row[0]), 0], [0, Math.sign(column[1])]]
    : [[0, Math.sign(column[0])], [Math.sign(row[1]), 0]];
}

/** Letters at the edges of the screen, once an image with these cosines is turned. */
function marksOf(row, column, turn) {
  const along = ([a, b]) => row.map((value, axis) => a * value + b * column[axis]);
  const right = along(turn[0]);
  const down = along(turn[1]);
  const opposite = (direction) => direction.map((value) => -value);
  return {
    right: letters(right),
    left: letters(opposite(right)),
    bottom: letters(down),
    top: letters(opposite(down)),
  };
}

/** A numpy file (NEP 1) as a typed array. */
function parseNumpy(buffer) {
  const start = 10 + new DataView(buffer).getUint16(8, true);
  const header = new TextDecoder('latin1').decode(new Uint8Array(buffer, 10, start - 10));
  const kind = ARRAYS[/'descr': *'([^']+)'/.exec(header)[1]];
  if (!kind) {
    throw new Error('This image is not of one channel.');
  }
  return new kind(buffer.slice(start));
}

/** What makes a number of a pixel's 16 bits, as Orthanc hands them on; as the analysis reads them. */
function valuesOf(bits, signed, tags) {
  if (bits === 16) {
    return (stored) => stored;
  }
  const unused = 32 - bits;
  if (tags.OverlayBitPosition && !tags.OverlayData) {
    // An overlay lies in the bits above, which are no part of the value.
    return signed ? (stored) => (stored << unused) >> unused : (stored) => (stored << unused) >>> unused;
  }
  const half = 2 ** (bits - 1);
  return (stored) => {
    // Padding, such as -2000 in twelve bits, may need them all; of negative values they may be empty.
    const value = (stored << 16) >> 16;
    return signed && value >= half && value < 2 * half ? value - 2 * half : value;
  };
}

/** Pixels of an instance in HU and the tags that go with them. */
async function loadSlice(id) {
  const [file, tags] = await Promise.all([
    getBytes(`/instances/${id}/numpy?rescale=false`),
    getJson(`/instances/${id}/simplified-tags`),
  ]);
  const stored = parseNumpy(file);
  const [rows, columns] = [Number(tags.Rows), Number(tags.Columns)];
  if (stored.length !== rows * columns) {
    throw new Error('This image is not one frame of one channel.');
  }
  const valueOf = valuesOf(Number(tags.BitsStored), tags.PixelRepresentation === '1', tags);
  const slope = Number(tags.RescaleSlope || 1);
  const intercept = Number(tags.RescaleIntercept || 0);
  const hu = new Int16Array(stored.length);
  for (let i = 0; i < hu.length; i += 1) {
    hu[i] = Math.max(-32768, Math.min(32767, Math.round(slope * valueOf(stored[i]) + intercept)));
  }
  const spacing = tags.PixelSpacing ? numbers(tags.PixelSpacing) : [1, 1];
  return { hu, rows, columns, spacing };
}

/**
 * Slices ascending along the normal of the images, as the analysis counts them; screens show the one nearest to the
 * head first.
 */
export class Stack {
  /** @param instances answer of /series/{id}/instances */
  constructor(instances) {
    const tags = instances.map((instance) => instance.MainDicomTags);
    this.placed = tags.every((tag) => tag.ImagePositionPatient && tag.ImageOrientationPatient);
    const cosines = this.placed ? numbers(tags[0].ImageOrientationPatient) : [1, 0, 0, 0, 1, 0];
    const [row, column] = [cosines.slice(0, 3), cosines.slice(3)];
    const normal = cross(row, column);
    this.slices = instances.map((instance) => {
      const { SOPInstanceUID, InstanceNumber, ImagePositionPatient } = instance.MainDicomTags;
      const position = this.placed ? numbers(ImagePositionPatient) : null;
      return {
        id: instance.ID,
        uid: SOPInstanceUID,
        number: InstanceNumber,
        z: position && position[2],
        distance: position ? dot(normal, position) : instance.IndexInSeries,
      };
    });
    this.slices.sort((a, b) => a.distance - b.distance);
    this.normal = normal;
    this.turn = turnOf(row, column);
    this.marks = this.placed ? marksOf(row, column, this.turn) : { top: '', right: '', bottom: '', left: '' };
    this.headLast = this.placed && normal[2] > 0;
  }

  get length() {
    return this.slices.length;
  }

  /** Name of a slice, as the report has it: by the number that viewers show. */
  name(index) {
    const { number } = this.slices[index];
    return number ? `image ${number}` : `slice ${this.flip(index) + 1}`;
  }

  /** Index of the slice that is nearest to a point in the patient. */
  nearest(point) {
    const away = ({ distance }) => Math.abs(distance - dot(this.normal, point));
    return this.slices.reduce((best, slice, index) => (away(slice) < away(this.slices[best]) ? index : best), 0);
  }

  /** Whether it holds as many images as were analysed; findings of earlier versions do not tell. */
  isOf(findings) {
    return findings.slices === undefined || findings.slices === this.length;
  }

  /** Index of the slice that shows a lesion; where images came or went since, of the one nearest to its middle. */
  sliceOf(lesion, findings) {
    return this.isOf(findings) && lesion.slice_index < this.length ? lesion.slice_index : this.nearest(lesion.center_mm);
  }

  /** Index of the slice at a place on the screen's way from head to feet, and the other way round. */
  flip(index) {
    return this.headLast ? this.length - 1 - index : index;
  }
}

/** Loads the slices around the one that is looked at, the nearest first, and forgets the farthest. */
export class Loader {
  constructor(stack, loaded) {
    this.stack = stack;
    this.loaded = loaded;
    this.held = new Map();
    this.underWay = new Set();
    this.center = 0;
    this.most = stack.length;
    this.ahead = false;
  }

  /** Load slices before they are looked at, from now on. */
  loadAhead() {
    this.ahead = true;
    this.pump();
  }

  /** A loaded slice, an Error where it cannot be loaded, undefined while it is on its way. */
  get(index) {
    return this.held.get(index);
  }

  lookAt(index) {
    this.center = index;
    if (this.held.get(index) instanceof Error) {
      this.held.delete(index);
    }
    this.pump();
  }

  /** Begin what is to be loaded next. The slice that is looked at comes alone, lest others delay it. */
  pump() {
    while (this.underWay.size < PARALLEL_REQUESTS && !this.underWay.has(this.center)) {
      const next = this.nearestMissing();
      if (next === undefined) {
        return;
      }
      this.load(next);
    }
  }

  nearestMissing() {
    const farthest = this.ahead ? this.most / 2 : 0;
    for (let away = 0; away <= farthest; away += 1) {
      for (const index of [this.center + away, this.center - away]) {
        if (index >= 0 && index < this.stack.length && !this.held.has(index) && !this.underWay.has(index)) {
          return index;
        }
      }
    }
    return undefined;
  }

  async load(index) {
    this.underWay.add(index);
    const slice = await loadSlice(this.stack.slices[index].id).catch((error) => error);
    this.underWay.delete(index);
    this.held.set(index, slice);
    if (slice.hu) {
      this.most = Math.max(3, Math.floor(MEMORY_BYTES / slice.hu.byteLength));
    }
    while (this.held.size > this.most + PARALLEL_REQUESTS) {
      const away = (held) => Math.abs(held - this.center);
      this.held.delete([...this.held.keys()].reduce((a, b) => (away(a) > away(b) ? a : b)));
    }
    this.loaded(index);
    this.pump();
  }
}
