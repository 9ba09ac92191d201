// Node.js 20 lacks Promise.withResolvers, which js-libp2p uses; Node.js 22 has it.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((...both) => { [resolve, reject] = both })
  return { promise, resolve, reject }
}
