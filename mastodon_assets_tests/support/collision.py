"""Two uris with the same XXH64, made on purpose."""

import random


def uris_with_one_hash() -> tuple[str, str]:
    """Two uris with the same XXH64.

    Input is taken in stripes of 32 bytes by four accumulators, acc = rotl(acc + word*P2, 31)*P1
    (the algorithm's specification). A change of the first word of one stripe can be undone by the
    first word of the next; most changes need bytes that are no ASCII there, so it is searched for.
    """
    mask = 2**64 - 1
    p1, p2 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F
    inverse = pow(p2, -1, 2**64)

    def after(word: int) -> int:
        total = (42 + p1 + p2 + word * p2) & mask
        return ((total << 31 | total >> 33) & mask) * p1 & mask

    generator = random.Random(1)
    first = b"https://" + b"one.example/users/ada/st"
    second_word = b"atuses/1"
    acc = after(int.from_bytes(first[:8], "little"))
    while True:
        word = bytes(generator.choices(b"abcdefghijklmnopqrstuvwxyz0123456789/._-", k=8))
        other = after(int.from_bytes(word, "little"))
        needed = (int.from_bytes(second_word, "little") + (acc - other) * inverse) & mask
        candidate = needed.to_bytes(8, "little")
        if all(33 <= byte < 127 for byte in candidate) and word != first[:8]:
            rest = b"xxxxxxxxxxxxxxxxxxxxxxxx"
            return (
                (first + second_word + rest).decode(),
                (word + first[8:] + candidate + rest).decode(),
            )
