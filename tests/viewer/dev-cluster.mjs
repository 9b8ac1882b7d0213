import { MockNode, CSP } from './mock.mjs';
export async function startCluster() { const node = await new MockNode([]).listen(); const second = { url: 'http://127.0.0.1:9', stop: async () => { node.faults.search = { partial: 'node http://127.0.0.1:9 does not answer' }; } };
 return { url: node.url, second, append: async (r) => node.append(r), close: () => node.close() }; }
