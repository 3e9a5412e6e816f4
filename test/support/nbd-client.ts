/** A client of bare sockets, for what no real client can be made to send. It believes nothing and checks every header. */
import { connect, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import {
  commands,
  IHAVEOPT,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_REP_MAGIC,
  NBD_REQUEST_MAGIC,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  NBDMAGIC,
  nbdClientFlags,
  nbdExtendedReply,
  nbdExtendedRequest,
  nbdGreeting,
  nbdInfoExport,
  nbdOption,
  nbdOptionReply,
  nbdRequest,
  nbdSimpleReply,
  nbdStructuredReply,
  optionReplies,
  options,
  replyTypes,
} from '../../src/nbd/protocol.ts';

/** Both flags a client can set: fixed newstyle, no zeroes. */
export const ALL_CLIENT_FLAGS = 3;

export interface OptionReply {
  readonly reply: number;
  readonly data: Buffer;
}

export interface RequestFields {
  readonly type: number;
  readonly flags?: number;
  readonly offset?: number | bigint;
  /** Default: the payload's length. */
  readonly length?: number | bigint;
  readonly payload?: Uint8Array;
  readonly cookie?: number | bigint;
}

/** One reply, all chunks of it. */
export interface Reply {
  readonly cookie: bigint;
  readonly errno: number;
  /** Text of an error chunk. */
  readonly message: string;
  /** Data of a READ. */
  readonly data: Buffer;
  /** Status descriptors by context id. */
  readonly status: ReadonlyMap<number, readonly (readonly [length: number, flags: number])[]>;
}

export class RawClient {
  style: 'simple' | 'structured' | 'extended' = 'simple';
  /** From NBD_INFO_EXPORT. */
  sizeBytes = 0;
  transmissionFlags = 0;
  /** What was connected, or its encrypted self. */
  socket: Socket;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  #ended = false;
  #wake: (() => void) | undefined;
  #nextCookie = 1n;
  /** READs under way: simple replies do not tell how long they are. */
  readonly #reads = new Map<bigint, number>();

  private constructor(socket: Socket) {
    this.socket = socket;
    this.#listen(socket);
  }

  #listen(socket: Socket): void {
    socket.on('data', (chunk: Buffer) => {
      this.#received.push(chunk);
      this.#receivedBytes += chunk.length;
      this.#wake?.();
    });
    const ended = () => {
      this.#ended = true;
      this.#wake?.();
    };
    socket.on('end', ended);
    socket.on('close', ended);
    socket.on('error', ended); // A reset is an end, too.
  }

  /** Connects to what `NbdServer.listen` returned. */
  static async connect(uri: string): Promise<RawClient> {
    const url = new URL(uri.replace(/^nbds?(\+unix)?:/, 'http:').replace('http:///', 'http://unix/'));
    const path = url.searchParams.get('socket');
    const target = path === null ? { host: url.hostname.replace(/[[\]]/g, ''), port: Number(url.port) } : { path };
    const socket = connect({ ...target, allowHalfOpen: true });
    const client = new RawClient(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return client;
  }

  send(...parts: readonly Uint8Array[]): void {
    for (const part of parts) this.socket.write(part);
  }

  /** The next `length` bytes. Rejects if the server closes before. */
  async receive(length: number): Promise<Buffer> {
    while (this.#receivedBytes < length && !this.#ended) await this.#more();
    if (this.#receivedBytes < length)
      throw new Error(`the server closed after ${this.#receivedBytes} of ${length} bytes`);
    const all = this.#received.length === 1 ? this.#received[0]! : Buffer.concat(this.#received);
    this.#received = all.length > length ? [all.subarray(length)] : [];
    this.#receivedBytes -= length;
    return all.subarray(0, length);
  }

  /** Resolves when the server has closed, to what it sent before. */
  async closed(): Promise<Buffer> {
    while (!this.#ended) await this.#more();
    return this.receive(this.#receivedBytes);
  }

  /** Stops, and starts again, taking bytes from the socket: a client that does not read its replies. */
  pauseReading(): void {
    this.socket.pause();
  }

  resumeReading(): void {
    this.socket.resume();
  }

  destroy(): void {
    this.socket.destroy();
  }

  // --- handshake ---

  /** From the server's consent to the end of the TLS handshake. Rejects with why that failed. */
  async startTls(settings: ConnectionOptions): Promise<TLSSocket> {
    const { reply, text } = await this.askFinal(options.NBD_OPT_STARTTLS);
    if (reply !== optionReplies.NBD_REP_ACK) throw new Error(`STARTTLS refused: ${text}`);
    return this.beginTls(settings);
  }

  /** The TLS handshake alone. */
  async beginTls(settings: ConnectionOptions): Promise<TLSSocket> {
    const plain = this.socket;
    plain.removeAllListeners('data').removeAllListeners('end');
    const socket = connectTls({ socket: plain, servername: 'localhost', ...settings });
    this.#listen(socket);
    this.socket = socket;
    await new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve);
      socket.once('error', reject);
      plain.once('close', () => reject(new Error('the server closed the connection')));
    });
    return socket;
  }

  async hello(flags: number = ALL_CLIENT_FLAGS): Promise<this> {
    const { nbdmagic, ihaveopt, handshakeFlags } = nbdGreeting.read(await this.receive(nbdGreeting.sizeBytes));
    check(nbdmagic === NBDMAGIC && ihaveopt === IHAVEOPT && handshakeFlags === 3, 'greeting');
    this.send(nbdClientFlags.encode({ flags }));
    return this;
  }

  sendOption(option: number, data: Uint8Array = Buffer.alloc(0), length = data.byteLength): void {
    this.send(nbdOption.encode({ magic: IHAVEOPT, option, length }), data);
  }

  async receiveOptionReply(option: number): Promise<OptionReply> {
    const header = nbdOptionReply.read(await this.receive(nbdOptionReply.sizeBytes));
    check(
      header.magic === NBD_REP_MAGIC && header.option === option,
      `reply to option ${header.option}, not ${option}`,
    );
    return { reply: header.reply, data: await this.receive(header.length) };
  }

  /** Sends an option; resolves to its replies, the final one last. */
  async ask(option: number, data?: Uint8Array): Promise<readonly OptionReply[]> {
    this.sendOption(option, data);
    const replies: OptionReply[] = [];
    for (;;) {
      const reply = await this.receiveOptionReply(option);
      replies.push(reply);
      if (reply.reply === optionReplies.NBD_REP_ACK || reply.reply >= 2 ** 31) return replies;
    }
  }

  /** The final reply's type and text. */
  async askFinal(option: number, data?: Uint8Array): Promise<{ reply: number; text: string }> {
    const { reply, data: text } = (await this.ask(option, data)).at(-1)!;
    return { reply, text: text.toString() };
  }

  /** Into transmission; rejects with the server's text if it refuses. */
  async go(
    name = '',
    { style = 'simple' as RawClient['style'], contexts = [] as readonly string[] } = {},
  ): Promise<this> {
    if (style !== 'simple') {
      const option = style === 'structured' ? options.NBD_OPT_STRUCTURED_REPLY : options.NBD_OPT_EXTENDED_HEADERS;
      const { reply } = await this.askFinal(option);
      check(reply === optionReplies.NBD_REP_ACK, `${style} replies refused`);
      this.style = style;
    }
    if (contexts.length > 0) await this.ask(options.NBD_OPT_SET_META_CONTEXT, contextData(name, contexts));
    const replies = await this.ask(options.NBD_OPT_GO, infoData(name));
    const final = replies.at(-1)!;
    if (final.reply !== optionReplies.NBD_REP_ACK) throw new Error(`GO refused: ${final.data.toString()}`);
    const info = nbdInfoExport.read(replies[0]!.data);
    this.sizeBytes = Number(info.size);
    this.transmissionFlags = info.transmissionFlags;
    return this;
  }

  // --- transmission ---

  /** Sends a request; returns its cookie. */
  request({ type, flags = 0, offset = 0, payload, length = payload?.byteLength ?? 0, cookie }: RequestFields): bigint {
    const id = cookie === undefined ? this.#nextCookie++ : BigInt(cookie);
    const cookieBytes = Buffer.alloc(8);
    cookieBytes.writeBigUInt64BE(id);
    const fields = { flags, type, cookie: cookieBytes, offset: BigInt(offset) };
    this.#reads.set(id, type === commands.NBD_CMD_READ ? Number(length) : 0);
    if (this.style === 'extended') {
      this.send(nbdExtendedRequest.encode({ ...fields, magic: NBD_EXTENDED_REQUEST_MAGIC, length: BigInt(length) }));
    } else {
      this.send(nbdRequest.encode({ ...fields, magic: NBD_REQUEST_MAGIC, length: Number(length) }));
    }
    if (payload !== undefined && payload.byteLength > 0) this.send(payload);
    return id;
  }

  /** The next reply, whichever request it is for. */
  async reply(): Promise<Reply> {
    let data: Buffer = Buffer.alloc(0);
    const status = new Map<number, (readonly [number, number])[]>();
    let errno = 0;
    let message = '';
    for (;;) {
      const chunk = await this.#chunk();
      if (chunk.simple) return { cookie: chunk.cookie, errno: chunk.errno, message, data: chunk.payload, status };
      const { payload } = chunk;
      if (chunk.type === replyTypes.NBD_REPLY_TYPE_OFFSET_DATA) data = Buffer.concat([data, payload.subarray(8)]);
      else if (chunk.type === replyTypes.NBD_REPLY_TYPE_ERROR) {
        errno = payload.readUInt32BE(0);
        message = payload.subarray(6, 6 + payload.readUInt16BE(4)).toString();
      } else if (chunk.type === replyTypes.NBD_REPLY_TYPE_BLOCK_STATUS) {
        check(this.style === 'structured', 'compact status in a structured session');
        status.set(payload.readUInt32BE(0), descriptors(payload, 4, 4));
      } else if (chunk.type === replyTypes.NBD_REPLY_TYPE_BLOCK_STATUS_EXT) {
        check(payload.readUInt32BE(4) * 16 + 8 === payload.length, 'descriptor count');
        status.set(payload.readUInt32BE(0), descriptors(payload, 8, 8));
      } else check(chunk.type === replyTypes.NBD_REPLY_TYPE_NONE, `chunk type ${chunk.type}`);
      if (chunk.done) {
        this.#reads.delete(chunk.cookie);
        return { cookie: chunk.cookie, errno, message, data, status };
      }
    }
  }

  /** One request and its reply, with nothing else under way. */
  async call(fields: RequestFields): Promise<Reply> {
    const cookie = this.request(fields);
    const reply = await this.reply();
    check(reply.cookie === cookie, `reply to ${reply.cookie}, not ${cookie}`);
    return reply;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const { errno, data } = await this.call({ type: commands.NBD_CMD_READ, offset, length });
    check(errno === 0 && data.length === length, `READ: error ${errno}, ${data.length} bytes`);
    return data;
  }

  async #chunk() {
    const magic = (await this.receive(4)).readUInt32BE(0);
    const rest = async (table: { readonly sizeBytes: number }) =>
      Buffer.concat([Buffer.alloc(4), await this.receive(table.sizeBytes - 4)]);
    if (magic === NBD_SIMPLE_REPLY_MAGIC) {
      const { error, cookie: bytes } = nbdSimpleReply.read(await rest(nbdSimpleReply));
      const cookie = Buffer.from(bytes).readBigUInt64BE();
      const expected = this.#reads.get(cookie);
      check(expected !== undefined, `reply to ${cookie}, which is not under way`);
      check(this.style !== 'extended', 'simple reply in an extended session');
      check(this.style === 'simple' || expected === 0, 'simple reply to READ in a structured session');
      this.#reads.delete(cookie);
      return { simple: true, cookie, errno: error, payload: await this.receive(error === 0 ? expected : 0) } as const;
    }
    const extended = magic === NBD_EXTENDED_REPLY_MAGIC;
    check(extended || magic === NBD_STRUCTURED_REPLY_MAGIC, `reply magic 0x${magic.toString(16)}`);
    check(this.style === (extended ? 'extended' : 'structured'), 'reply style');
    const header = extended
      ? nbdExtendedReply.read(await rest(nbdExtendedReply))
      : nbdStructuredReply.read(await rest(nbdStructuredReply));
    const cookie = Buffer.from(header.cookie).readBigUInt64BE();
    check(this.#reads.has(cookie), `chunk for ${cookie}, which is not under way`);
    const payload = await this.receive(Number(header.length));
    return { simple: false, cookie, type: header.type, done: (header.flags & 1) !== 0, payload } as const;
  }

  #more(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined;
        resolve();
      };
    });
  }
}

/** Data of NBD_OPT_INFO and NBD_OPT_GO. */
export function infoData(name: string, infos: readonly number[] = []): Buffer {
  return Buffer.concat([lengthAnd(name), be16(infos.length), ...infos.map(be16)]);
}

/** Data of the options on metadata contexts. */
export function contextData(name: string, queries: readonly string[]): Buffer {
  return Buffer.concat([lengthAnd(name), be32(queries.length), ...queries.map(lengthAnd)]);
}

export function be16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function be32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function be64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

function lengthAnd(text: string): Buffer {
  return Buffer.concat([be32(Buffer.byteLength(text)), Buffer.from(text)]);
}

/** Descriptors of `size`-byte numbers from `at` on. */
function descriptors(payload: Buffer, at: number, size: 4 | 8): (readonly [number, number])[] {
  const number = (i: number) => (size === 4 ? payload.readUInt32BE(i) : Number(payload.readBigUInt64BE(i)));
  const found: (readonly [number, number])[] = [];
  for (let i = at; i < payload.length; i += 2 * size) found.push([number(i), number(i + size)]);
  check(found.length > 0, 'a status chunk without a descriptor');
  return found;
}

function check(condition: unknown, what: string): asserts condition {
  if (!condition) throw new Error(`the server broke the protocol: ${what}`);
}
