"""Random queries over the random streams of data.py."""

_SELECTORS = [
    '{group="random"}',
    '{group="random"}',
    '{group="random", app="api"}',
    '{group="random", app=~"api|web"}',
    '{group="random", host!="h1"}',
    '{group="random", env=""}',
    '{app=~"a.*|d.", group="random", env!~"p.*"}',
]
_NAMES = (
    "level status status_extracted n dur size app app_extracted host env msg trace "
    "trace_extracted ip detected_level new missing"
).split()


class Questions:
    def __init__(self, chance):
        self.chance = chance

    def pick(self, *choices):
        return self.chance.choice(choices)

    def name(self):
        return self.pick(*_NAMES)

    def names(self, most):
        return ", ".join(self.chance.sample(_NAMES, self.chance.randrange(1, most + 1)))

    def log(self):
        return self.pick(*_SELECTORS) + self.stages(5)

    def stages(self, most):
        return "".join(" " + self.stage() for _ in range(self.chance.randrange(most + 1)))

    def stage(self):
        pick = self.pick
        kind = self.chance.randrange(24)
        if kind < 2:
            return pick("|=", "|=", "!=") + f" `{pick('error', 'level', '10.0.0.7', 'GET', '{', 'größe')}`"
        if kind == 2:
            return pick("|~", "!~") + f" `{pick('err.r|GET', '(?i)ERROR', '^[{]', '[0-9]+[.][0-9]+', 'user$')}`"
        if kind == 3:
            return pick("|>", "!>") + f" `{pick('<_>GET <_>', 'error <_>', '<_>level=<_>', '{<_>}')}`"
        if kind == 4:
            return pick("|=", "!=") + f' ip("{pick("10.0.0.0/8", "10.0.0.7", "10.0.0.1-10.1.0.0")}")'
        if kind < 11:
            return pick("| json", "| json", "| logfmt", "| logfmt", "| logfmt --strict", "| logfmt --keep-empty")
        if kind == 11:
            return pick('| json id="user.id", tags="user.tags", app', '| logfmt lvl="level", n, app, gone="nothing"')
        if kind == 12:
            return pick(
                '| regexp `n["=:]+(?P<n>-?[0-9]+)(?P<rest>[.][0-9]+)?`',
                '| pattern `<ip> - <user> [<_>] "<method> <path> <_>" <status> <size>`',
                "| pattern `<_>level=<level> <rest>`",
            )
        if kind == 13:
            return pick("| line_format `{{.level}} {{ .n }}`", '| line_format `{"n": "{{.n}}"}`', "| decolorize")
        if kind == 14:
            return pick(
                "| label_format new=level",
                "| label_format app=level, new=`{{.app}}-{{.n}}`",
                "| label_format new=`{{.app}}`, host=`{{.new}}`",
            )
        if kind == 15:
            return "| drop " + self.picks()
        if kind == 16:
            return "| keep " + self.picks()
        if kind == 17:
            return "| __error__=``"
        return "| " + self.label_filter(2)

    def picks(self):
        name = self.name()
        return self.names(3) + self.pick("", "", f', {name}="info"', f", {name}=~`[0-9]+`")

    def compare(self):
        return self.pick("==", "!=", ">", ">=", "<", "<=")

    def label_filter(self, depth):
        pick = self.pick
        if depth and self.chance.random() < 0.25:
            left, right = self.label_filter(depth - 1), self.label_filter(depth - 1)
            return pick(f"{left} and {right}", f"{left}, {right}", f"({left} or {right})", f"{left} or {right}")
        return pick(
            f'{self.name()} {pick("=", "!=")} "{pick("info", "error", "200", "api", "")}"',
            f'{self.name()} {pick("=~", "!~")} `{pick("info|warn", "[0-9]+", ".*r.*", ".+", "")}`',
            f'{pick("n", "status", "level", "size")} {self.compare()} {pick("10", "200", "-1", "2.25", "1e2")}',
            f'dur {self.compare()} {pick("500ms", "1s", "1m", "1.5s")}',
            f'size {self.compare()} {pick("1kB", "1KiB", "2KB", "512B", "1MB")}',
            f'ip {pick("=", "!=")} ip("{pick("10.0.0.0/8", "10.1.0.0-10.2.0.0")}")',
        )

    def window(self):
        offset = self.pick("", "", "", "", f' offset {self.pick("15s", "1m", "-1m", "500ms")}')
        return f'[{self.pick("10s", "15s", "1m", "1m", "2m30s", "10m")}]{offset}'

    def grouping(self):
        return self.pick("", f" by ({self.names(2)})", f" by ({self.names(2)})", f" without ({self.names(2)})")

    def metric(self, depth=3):
        pick = self.pick
        kind = self.chance.randrange(20) if depth else 0
        if kind < 8:
            return self.range()
        if kind < 14:
            function = pick("sum", "sum", "avg", "min", "max", "count", "stddev", "stdvar")
            return f"{function}{self.grouping()} ({self.metric(depth - 1)})"
        if kind < 16:
            op = pick("+", "-", "*", "/", "> 3.337 + 0 *", "< bool 3.337 + 0 *")
            return f'({self.metric(depth - 1)} {op} {pick("2", "0", "10", "-1", "2.5")})'
        if kind < 19:
            by = pick("app", "host", "app, host", "level")
            op = pick("+", "-", "*", "/", "and", "or", "unless")
            matching = pick("", f" on ({by})", f" ignoring ({self.name()})")
            left = f"sum by ({by}) ({self.metric(depth - 1)})"
            return f"({left} {op}{matching} max by ({by}) ({self.metric(depth - 1)}))"
        return f'label_replace({self.metric(depth - 1)}, "new", "$1-x", "{self.name()}", "(.)(.*)")'

    def range(self):
        pick = self.pick
        if self.chance.random() < 0.5:
            function = pick("count_over_time", "rate", "bytes_over_time", "bytes_rate", "absent_over_time")
            errors = pick(" | __error__=``", " | __error__=``", " | __error__=``", "")
            return f"{function}({pick(*_SELECTORS)}{self.stages(3)}{errors} {self.window()})"
        function = pick(*"sum avg min max stddev stdvar quantile".split())
        rank = pick("0.5, ", "0.99, ", "0.33, ") if function == "quantile" else ""
        parser = pick("| json", "| logfmt", "| logfmt | json | drop __error__", "")
        unwrap = pick("n", "n", "n", "status", "bytes(size)", "duration(dur)", "missing")
        errors = pick(" | __error__=``", " | __error__=``", " | __error__=``", "")
        grouping = self.grouping() if function != "sum" else ""
        body = f"{pick(*_SELECTORS)} {parser}{self.stages(1)} | unwrap {unwrap}{errors} {self.window()}"
        return f"{function}_over_time({rank}{body}){grouping}"
