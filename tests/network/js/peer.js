// A js-libp2p peer for the interop test.
//   node peer.js listen           prints its address, then serves /echo until its stdin closes
//   node peer.js dial <address>   calls /echo there with a small and a 1 MB frame
// A frame is a 4-byte big-endian length and that many bytes.
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const PROTOCOL = '/assay/interop/echo/1'

async function * frames (stream) {
  let held = Buffer.alloc(0)
  for await (const chunk of stream) {
    held = Buffer.concat([held, Buffer.from(chunk.subarray())])
    while (held.length >= 4 && held.length >= 4 + held.readUInt32BE(0)) {
      const end = 4 + held.readUInt32BE(0)
      yield held.subarray(4, end)
      held = held.subarray(end)
    }
  }
}

async function send (stream, body) {
  const head = Buffer.alloc(4)
  head.writeUInt32BE(body.length)
  if (!stream.send(Buffer.concat([head, body]))) {
    await stream.onDrain()
  }
}

async function echo (stream) {
  try {
    for await (const frame of frames(stream)) {
      await send(stream, frame)
    }
    await stream.close()
  } catch (error) {
    stream.abort(error) // the dialer has left: expected
  }
}

async function call (node, address) {
  const stream = await node.dialProtocol(multiaddr(address), PROTOCOL)
  const answers = frames(stream)
  for (const body of [Buffer.from('from js'), Buffer.alloc(1 << 20, 0xa5)]) {
    await send(stream, body)
    const { value } = await answers.next()
    if (!body.equals(value)) {
      throw new Error('the echo differs')
    }
  }
  await stream.close()
}

const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()]
})
if (process.argv[2] === 'listen') {
  await node.handle(PROTOCOL, echo)
  console.log(String(node.getMultiaddrs()[0]))
  process.stdin.resume()
  await new Promise(resolve => process.stdin.on('end', resolve))
} else {
  await call(node, process.argv[3])
  console.log('ok')
}
await node.stop()
process.exit(0)
