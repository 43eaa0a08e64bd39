/** What programs that embed the connector need: its contracts, its configuration and its pipeline. */
export * as Connector from "./Connector.ts"
export {
  type ConfigSource,
  ConnectorConfig,
  ConnectorConfigError,
  fromEnvironment,
  fromObject,
  fromSettings
} from "./ConnectorConfig.ts"
export type { Settings } from "./Settings.ts"
export * as FluvioConsumer from "./stream/FluvioConsumer.ts"
export * as OffsetStore from "./stream/OffsetStore.ts"
export * as Progress from "./Progress.ts"
export type { Applied } from "./Applied.ts"
