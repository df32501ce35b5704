// The picture: one slice in a window, with outlines of the lungs and tinted lesions.

import { Loader } from './stack.js';
import { COLORS } from './segmentation.js';

/** Windows by name: center and width in HU. */
export const WINDOWS = { lung: [-600, 1500], mediastinum: [40, 400], bone: [400, 1800] };

const DRAG_PIXELS = 8; // of a finger for one slice
const WHEEL_PIXELS = 100; // of a wheel for one slice: a notch; a trackpad sends many small ones
const LINE_PIXELS = 33; // some browsers count the wheel in lines

/** Gray values of all HU from -32768 to 32767. */
function grays([center, width]) {
  const table = new Uint8ClampedArray(65536);
  for (let hu = -32768; hu < 32768; hu += 1) {
    table[hu + 32768] = (255 * (hu - (center - width / 2))) / width;
  }
  return table;
}

/** Whether a pixel of a mask has a neighbour outside. */
function onEdge(mask, i, columns) {
  return !mask[i - 1] || !mask[i + 1] || !mask[i - columns] || !mask[i + columns];
}

export class Viewer {
  /**
   * @param canvas where to draw
   * @param stack the slices
   * @param shown called with the index of a slice once it is looked at, and again once it is drawn
   */
  constructor(canvas, stack, shown) {
    this.canvas = canvas;
    this.stack = stack;
    this.shown = shown;
    this.segmentations = [];
    this.opacity = 0.4;
    this.hidden = new Set();
    this.wheeled = 0;
    this.image = document.createElement('canvas');
    this.loader = new Loader(stack, (index) => index === this.index && this.draw());
    this.index = -1;
    this.window = 'lung';
    /** Fulfilled once there is a picture. */
    this.painted = new Promise((resolve) => {
      this.paintedFirst = resolve;
    });
    this.listen();
  }

  get window() {
    return this.windowName;
  }

  set window(name) {
    this.windowName = name;
    this.table = grays(WINDOWS[name]);
    this.draw();
  }

  /** Place of the slice on the way from head to feet. */
  get place() {
    return this.stack.flip(this.index);
  }

  goTo(index) {
    const next = Math.max(0, Math.min(this.stack.length - 1, index));
    if (next === this.index) {
      return;
    }
    this.index = next;
    this.loader.lookAt(next);
    this.shown(next);
    this.draw();
  }

  /** Go some slices towards the feet, or the head where negative. */
  step(slices) {
    this.goTo(this.stack.flip(Math.max(0, Math.min(this.stack.length - 1, this.place + slices))));
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    this.draw();
  }

  setVisible(layer, visible) {
    if (visible) {
      this.hidden.delete(layer);
    } else {
      this.hidden.add(layer);
    }
    this.draw();
  }

  addSegmentation(segmentation) {
    this.segmentations.push(segmentation);
    this.draw();
  }

  /** Draw soon: however often it is asked for, once a picture of the screen. */
  draw() {
    if (!this.drawing && this.index >= 0) {
      this.drawing = requestAnimationFrame(() => {
        this.drawing = 0;
        this.paint();
      });
    }
  }

  paint() {
    const slice = this.loader.get(this.index);
    if (slice) {
      this.paintedFirst();
    }
    if (!slice || slice instanceof Error) {
      this.canvas.dataset.slice = '';
      this.shown(this.index, slice);
      return;
    }
    const { hu, rows, columns } = slice;
    const picture = new ImageData(columns, rows);
    const pixels = picture.data;
    for (let i = 0, p = 0; i < hu.length; i += 1, p += 4) {
      const gray = this.table[hu[i] + 32768];
      pixels[p] = gray;
      pixels[p + 1] = gray;
      pixels[p + 2] = gray;
      pixels[p + 3] = 255;
    }
    for (const layer of Object.keys(COLORS)) {
      if (!this.hidden.has(layer)) {
        this.masks(layer).forEach((mask) => this.tint(pixels, mask, columns, layer));
      }
    }
    this.image.width = columns;
    this.image.height = rows;
    this.image.getContext('2d').putImageData(picture, 0, 0);
    this.turn(slice);
    this.canvas.dataset.slice = this.index;
    this.shown(this.index, slice);
  }

  masks(layer) {
    const { uid } = this.stack.slices[this.index];
    if (this.maskedUid !== uid || this.maskedBy !== this.segmentations.length) {
      this.maskedUid = uid;
      this.maskedBy = this.segmentations.length;
      this.currentMasks = this.segmentations.flatMap((segmentation) => segmentation.masks(uid));
    }
    return this.currentMasks.filter((one) => one.layer === layer).map((one) => one.mask);
  }

  /** Outline a mask; fill it too unless it is a lung's, whose tissue is to be seen. */
  tint(pixels, mask, columns, layer) {
    const color = COLORS[layer];
    for (let i = 0; i < mask.length; i += 1) {
      if (mask[i]) {
        const edge = onEdge(mask, i, columns);
        const share = edge ? Math.min(1, 2 * this.opacity) : this.opacity * (layer === 'lungs' ? 0 : 1);
        for (let channel = 0; channel < 3; channel += 1) {
          const p = 4 * i + channel;
          pixels[p] += share * (color[channel] - pixels[p]);
        }
      }
    }
  }

  /** Draw the image onto the canvas, in the standard view and with square pixels. */
  turn({ rows, columns, spacing }) {
    const finest = Math.min(...spacing);
    const [down, along] = [spacing[0] / finest, spacing[1] / finest];
    const [[a, c], [b, d]] = this.stack.turn;
    const width = Math.abs(a) * columns * along + Math.abs(c) * rows * down;
    const height = Math.abs(b) * columns * along + Math.abs(d) * rows * down;
    this.canvas.width = Math.round(width);
    this.canvas.height = Math.round(height);
    const context = this.canvas.getContext('2d');
    this.matrix = new DOMMatrix([
      a * along, b * along, c * down, d * down, a + c < 0 ? width : 0, b + d < 0 ? height : 0,
    ]);
    context.setTransform(this.matrix);
    context.drawImage(this.image, 0, 0);
  }

  /** HU under the pointer, or undefined where it points beside the image. */
  get hu() {
    const slice = this.loader.get(this.index);
    if (!this.pointer || !slice || !slice.hu || !this.matrix) {
      return undefined;
    }
    const box = this.canvas.getBoundingClientRect();
    // The picture keeps its proportions inside the element.
    const scale = Math.min(box.width / this.canvas.width, box.height / this.canvas.height);
    const point = new DOMPoint(
      (this.pointer.x - (box.left + box.right) / 2) / scale + this.canvas.width / 2,
      (this.pointer.y - (box.top + box.bottom) / 2) / scale + this.canvas.height / 2,
    ).matrixTransform(this.matrix.inverse());
    const [column, row] = [Math.floor(point.x), Math.floor(point.y)];
    const inside = column >= 0 && column < slice.columns && row >= 0 && row < slice.rows;
    return inside ? slice.hu[row * slice.columns + column] : undefined;
  }

  listen() {
    this.canvas.addEventListener('wheel', (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE_PIXELS : 1);
      this.wheeled = (this.wheeled * pixels > 0 ? this.wheeled : 0) + pixels;
      const slices = Math.trunc(this.wheeled / WHEEL_PIXELS);
      this.wheeled -= slices * WHEEL_PIXELS;
      this.step(slices);
    }, { passive: false });
    this.canvas.addEventListener('pointerdown', (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.dragged = event.clientY;
    });
    this.canvas.addEventListener('pointerleave', () => {
      this.pointer = null;
    });
    this.canvas.addEventListener('pointermove', (event) => {
      this.pointer = { x: event.clientX, y: event.clientY };
      if (this.canvas.hasPointerCapture(event.pointerId)) {
        const slices = Math.trunc((event.clientY - this.dragged) / DRAG_PIXELS);
        this.dragged += slices * DRAG_PIXELS;
        this.step(slices);
      }
    });
  }
}
