// BINARY segmentations (SEG) as masks over the slices that they were made from.

import { getBytes, getJson } from './orthanc.js';

/** The layers of the overlay by the code of what a segment shows. */
const LAYERS = { 39607008: 'lungs', 112120: 'ground-glass', 112121: 'consolidation' };

const ONES = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length);

/** Layers of the overlay, the lower ones first. Lesions have the colours that the segmentations name too; the lungs, of
 * which only the outline is drawn, have one that is seen on tissue as well. */
export const COLORS = {
  lungs: [110, 200, 225],
  'ground-glass': [255, 176, 0],
  consolidation: [220, 38, 127],
};

function first(sequence) {
  return sequence && sequence[0] ? sequence[0] : {};
}

/** The bits of the frames: all that follows the header of the last element, (7FE0,0010) OB. */
function pixelBits(file, bits) {
  const length = 2 * Math.ceil(bits / 16);
  const header = new DataView(file, file.byteLength - length - 12, 12);
  if (header.getUint16(0, true) !== 0x7fe0 || header.getUint16(2, true) !== 0x0010) {
    throw new Error('The segmentation is not stored uncompressed.');
  }
  return new Uint8Array(file, file.byteLength - length, length);
}

export class Segmentation {
  /** Load a segmentation by the Orthanc id of its instance. */
  static async load(id) {
    const [tags, file] = await Promise.all([
      getJson(`/instances/${id}/simplified-tags`),
      getBytes(`/instances/${id}/file`),
    ]);
    return new Segmentation(tags, file);
  }

  constructor(tags, file) {
    this.frameSize = Number(tags.Rows) * Number(tags.Columns);
    this.bits = pixelBits(file, this.frameSize * Number(tags.NumberOfFrames));
    const layers = new Map(
      tags.SegmentSequence.map((segment) => [
        segment.SegmentNumber,
        LAYERS[first(segment.SegmentedPropertyTypeCodeSequence).CodeValue],
      ]),
    );
    this.frames = new Map(); // by SOPInstanceUID of the source image
    tags.PerFrameFunctionalGroupsSequence.forEach((groups, frame) => {
      const source = first(first(groups.DerivationImageSequence).SourceImageSequence).ReferencedSOPInstanceUID;
      const layer = layers.get(first(groups.SegmentIdentificationSequence).ReferencedSegmentNumber);
      const frames = this.frames.get(source) || [];
      frames.push({ frame, layer });
      this.frames.set(source, frames);
    });
  }

  /** Masks over a source image: layer and one byte a pixel, 1 inside. */
  masks(uid) {
    return (this.frames.get(uid) || []).map(({ frame, layer }) => {
      const mask = new Uint8Array(this.frameSize);
      const start = frame * this.frameSize;
      for (let i = 0; i < mask.length; i += 1) {
        const bit = start + i;
        mask[i] = (this.bits[bit >> 3] >> (bit & 7)) & 1;
      }
      return { layer, mask };
    });
  }

  /** Number of pixels of a layer on a source image. */
  area(uid, layer) {
    return (this.frames.get(uid) || [])
      .filter((one) => one.layer === layer)
      .reduce((sum, { frame }) => sum + this.countBits(frame * this.frameSize, (frame + 1) * this.frameSize), 0);
  }

  countBits(start, end) {
    let count = 0;
    let bit = start;
    while (bit < end) {
      if (bit % 8 === 0 && bit + 8 <= end) {
        count += ONES[this.bits[bit >> 3]];
        bit += 8;
      } else {
        count += (this.bits[bit >> 3] >> (bit & 7)) & 1;
        bit += 1;
      }
    }
    return count;
  }
}
