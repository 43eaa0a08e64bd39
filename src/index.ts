/** What programs that embed the connector need: its contracts, its configuration and its pipeline. */
export * as Connector from "./Connector.ts"
export { ConnectorConfig, ConnectorConfigError, fromEnvironment, fromObject } from "./ConnectorConfig.ts"
export * as FluvioConsumer from "./stream/FluvioConsumer.ts"
export * as OffsetStore from "./stream/OffsetStore.ts"
export * as Progress from "./Progress.ts"
export type { Applied } from "./Applied.ts"
