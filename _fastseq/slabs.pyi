from typing_extensions import disjoint_base

@disjoint_base
class Memory:
    def __new__(cls, size: int) -> Memory: ...

@disjoint_base
class Slabs:
    def __new__(cls, size: int) -> Slabs: ...

@disjoint_base
class Reserve:
    def __new__(cls, size: int) -> Reserve: ...
