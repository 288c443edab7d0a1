"""Events to brokers and web addresses, each acknowledged, none lost while those are away.

`forwarder` (`Forwarder`: from the store to one receiver, with back-off), `sender` (what it hands events to, and the
errors), `mqtt` (`MqttSender`), `webhook` (`WebhookSender`), `settings`. Nothing here subscribes to anything or follows
a redirect, so what a broker or web server says is never acted on.
"""
