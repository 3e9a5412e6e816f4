import { test } from 'vitest';
import { fuzzServer } from '../support/nbd-fuzz.ts';

const frameCount = Number(process.env.NBD_FUZZ_FRAMES ?? 1_000_000);
const seed = Number(process.env.NBD_FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 32));

test(`${frameCount} random frames, seed ${seed}`, () => fuzzServer({ frameCount, seed }));
