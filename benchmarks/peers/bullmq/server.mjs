// The server that the environment names, as BullMQ's connection: a unix:// URL in BENCHMARK_REDIS.
export const connection = {
  path: (process.env.BENCHMARK_REDIS ?? "").replace(/^unix:\/\//, ""),
  maxRetriesPerRequest: null, // what BullMQ asks of a worker's connection
};
export const queueName = "benchmark";
