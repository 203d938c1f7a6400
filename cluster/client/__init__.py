"""The asyncio client: Producer, Consumer, Admin."""
