import asyncio

from nomadserve_runtime.turns import Turns


def test_one_gets_through_in_each_turn_of_the_event_loop_in_order() -> None:
    async def test() -> None:
        turns, turn, seen = Turns(), 0, []
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal turn
            turn += 1
            loop.call_soon(count)

        async def work(name: int) -> None:
            await turns()
            seen.append((name, turn))

        count()
        await asyncio.gather(*(work(name) for name in range(5)))
        assert [name for name, _ in seen] == [0, 1, 2, 3, 4]
        assert len({at for _, at in seen}) == 5

    asyncio.run(test())


def test_who_no_longer_waits_takes_nobody_s_turn() -> None:
    async def test() -> None:
        turns = Turns()
        tasks = [asyncio.ensure_future(turns()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[1].cancel()
        async with asyncio.timeout(20):
            await tasks[2]
            await turns()

    asyncio.run(test())
