import { assert, describe, it } from "vitest"
import { partitionsOf, TopicNotFound } from "../../../src/stream/FluvioConsumer.ts"

describe("TopicNotFound", () => {
  it("names the setting to correct, and what the topic has", () => {
    const place = { topic: "orders", partition: 5 }
    const many = new TopicNotFound({ ...place, partitions: [0, 1] })
    assert.strictEqual(many.message, "the topic orders has no partition 5; it has 0, 1")
    assert.strictEqual(many.remedy, "set `partition` to one of 0, 1")
    assert.strictEqual(new TopicNotFound({ ...place, partitions: [0] }).remedy, "set `partition` to 0")
    const none = new TopicNotFound({ ...place, partitions: [] })
    assert.strictEqual(none.message, "the cluster does not know the topic orders")
    assert.strictEqual(none.remedy, "create it with `fluvio topic create orders`, or correct `topic`")
    assert.strictEqual(
      new TopicNotFound(place).message,
      "the cluster does not know the topic orders, or its partition 5"
    )
  })

  it("tells a topic's partitions from those of topics whose names begin alike", () => {
    const names = ["orders-10", "orders-2", "orders-old-0", "orders", "other-0"]
    assert.deepStrictEqual(partitionsOf("orders", names), [2, 10])
  })
})
