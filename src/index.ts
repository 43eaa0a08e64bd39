/** What programs that embed the connector need: its contracts, its configuration and its pipeline. */
export * as Connector from "./Embedding.ts"
export {
  type ConfigSource,
  ConnectorConfig,
  ConnectorConfigError,
  fromEnvironment,
  fromObject,
  fromSettings
} from "./ConnectorConfig.ts"
export type { Settings } from "./Settings.ts"
export * as Errors from "./Errors.ts"
export * as FluvioConsumer from "./stream/FluvioConsumer.ts"
export * as OffsetStore from "./stream/OffsetStore.ts"
export * as Progress from "./Progress.ts"
export type { Applied, ChangesByTable, TableChanges } from "./Applied.ts"
export type { Instance } from "./operate/Instance.ts"
