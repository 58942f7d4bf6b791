"""Queries written by hand: each asks for something that is easy to get wrong."""

LOGS = r'''
{app="json"}
{app="json"} | json
{app="json"} | json | __error__=""
{app="json"} | json | __error__!=""
{app="json"} | json | __error__="JSONParserErr" | drop __error_details__
{app="json"} | json | line_format "{{.level}}|{{.status}}|{{.n}}"
{app="json"} | json level, n
{app="json"} | json l="level", u="user.id", un="user[\"name\"]", first="a.d[0]", k="a.d[1].k", whole="a.b", list="a.d", gone="x.y"
{app="json"} | json app="app", status="status"
{app="json"} | json e="emoji", l="lone", c="ctrl"
{app="json"} | json arr="arr[0][1]", arr2="arr[1]", nest="nested"
{app="json"} | json x="[\"a-b c\"]", y="[\"9x\"]"
{app="json"} | json n="n" | n > 2
{app="json"} | json | n > 2
{app="json"} | json | n >= 7
{app="json"} | json | n != 7
{app="json"} | json | n == 7
{app="json"} | json | n < 0
{app="json"} | json | n > 1e300
{app="json"} | json | n = 1.5
{app="json"} | json | n="1.50"
{app="json"} | json | status >= 400
{app="json"} | json | status != 200
{app="json"} | json | status=~"2..|5.."
{app="json"} | json | status!~"2..|5.."
{app="json"} | json | status="" 
{app="json"} | json | status!=""
{app="json"} | json | dur > 1s
{app="json"} | json | dur < 0s
{app="json"} | json | dur != 250ms
{app="json"} | json | dur > 1d
{app="json"} | json | size > 1KB
{app="json"} | json | size >= 1.5kB
{app="json"} | json | size < 1KiB
{app="json"} | json | size = 1GB
{app="json"} | json | ip = ip("10.0.0.0/8")
{app="json"} | json | ip != ip("10.0.0.0/8")
{app="json"} | json | ip6 = ip("2001:db8::/32")
{app="json"} | json | noip = ip("10.0.0.0/8")
{app="json"} | json | noip != ip("10.0.0.0/8")
{app="json"} | json | n > 1 and status >= 200
{app="json"} | json | n > 1 or status >= 500
{app="json"} | json | n > 1, status >= 200
{app="json"} | json | n > 1 status >= 200
{app="json"} | json | (n > 1 or status >= 500) and level != "info"
{app="json"} | json | n > 1 or status >= 500 and level != "info"
{app="json"} | json | level="error" or n > 5
{app="json"} | json | n > 5 or level="error"
{app="json"} | json | n > 5 or dur > 1s
{app="json"} | json | missing > 5 or n > 5
{app="json"} | json | n > 5 | __error__="LabelFilterErr"
{app="json"} | json | n > 5 | __error__=""
{app="json"} | json | n > 5 | status > 5
{app="json"} | json | broken_at_all="" | n = 5
{app="json"} | json | drop n, status
{app="json"} | json | drop level="info"
{app="json"} | json | drop level=~"i.*|e.*", status!="503"
{app="json"} | json | drop app
{app="json"} | json | drop __error__
{app="json"} | json | drop __error__, __error_details__
{app="json"} | json | drop service_name, detected_level
{app="json"} | json | keep n
{app="json"} | json | keep n, status="200"
{app="json"} | json | keep app, n=~"[0-9]"
{app="json"} | json | keep missing
{app="json"} | keep missing
{app="json"} | json | label_format new=level
{app="json"} | json | label_format level=n
{app="json"} | json | label_format app=level
{app="json"} | json | label_format app=`x-{{.level}}`
{app="json"} | json | label_format a=`{{.n}}`, b=`{{.a}}`
{app="json"} | json | label_format a=n, b=`{{.a}}{{.n}}`
{app="json"} | json | label_format n=n
{app="json"} | json | label_format a=level, b=level
{app="json"} | json | label_format empty2=`{{.missing}}`
{app="json"} | json | json
{app="json"} | json | logfmt
{app="json"} | json | line_format "{{.user_name}}" | json
{app="json"} | logfmt
{app="json"} | unpack
{app="json"} | json | app_extracted="inner"
{app="json"} | json | app="inner"
{app="json"} | json | app="json"
{app="json"} | json | env_extracted="clash"
{app="json"} | json | detected_level="clash"
{app="json"} | json | detected_level="error"
{app="json"} | json | detected_level_extracted="clash"
{app="json"} | json | a_b_c="deep"
{app="json"} | json | emoji="😀"
{app="json"} | json | emoji=~"."
{app="json"} | json | msg=~"line.break.*"
{app="json"} | json | msg=~"(?s)line.break.*"
{app="json"} | json |= "level" | n > 1
{app="json"} |= "level" |= "info"
{app="json"} |~ `"n":\d+`
{app="json"} !~ `"n":\d+` != ""
{app="json"} |= ``
{app="json"} != ``
{app="json"} |= "\"n\":7"
{app="json"} |= `\u00fc`
{app="json"} |= "ü"
{app="logfmt"}
{app="logfmt"} | logfmt
{app="logfmt"} | logfmt --strict
{app="logfmt"} | logfmt --keep-empty
{app="logfmt"} | logfmt --strict --keep-empty
{app="logfmt"} | logfmt --keep-empty --strict | __error__=""
{app="logfmt"} | logfmt --strict | __error__!="" | drop __error_details__
{app="logfmt"} | logfmt level, n, gone
{app="logfmt"} | logfmt lvl="level", num="n", nothing="nothing"
{app="logfmt"} | logfmt d="dup", n
{app="logfmt"} | logfmt app
{app="logfmt"} | logfmt u="user.id", path="path"
{app="logfmt"} | logfmt --strict lvl="level"
{app="logfmt"} | logfmt x="a.b", y="a-b"
{app="logfmt"} | logfmt --keep-empty | empty=""
{app="logfmt"} | logfmt | empty=""
{app="logfmt"} | logfmt | n > 2
{app="logfmt"} | logfmt | n != 2
{app="logfmt"} | logfmt | n > 2 | __error__=""
{app="logfmt"} | logfmt | dur > 1m
{app="logfmt"} | logfmt | size > 1KB
{app="logfmt"} | logfmt | status < 500
{app="logfmt"} | logfmt | esc=~"a.*"
{app="logfmt"} | logfmt | raw="a\\nb"
{app="logfmt"} | logfmt | msg="two words"
{app="logfmt"} | logfmt | user_id="7"
{app="logfmt"} | logfmt | level="INFO"
{app="logfmt"} | logfmt | level=~"(?i)info"
{app="logfmt"} | json
{app="logfmt"} | regexp `n=(?P<n>\d+)`
{app="logfmt"} | regexp `(?P<key>\w+)=(?P<value>\w+)`
{app="logfmt"} | regexp `(?P<app>\w+)=(?P<opt>zzz)?`
{app="logfmt"} | regexp `(?P<n>\d+)` | logfmt
{app="logfmt"} | logfmt | regexp `(?P<n>\d+)`
{app="logfmt"} | pattern `<first> <rest>`
{app="logfmt"} | pattern `level=<level> <_>`
{app="logfmt"} | pattern `<_>n=<n> <_>`
{app="logfmt"} | pattern `<_>n=<n>`
{app="logfmt"} | pattern `<a>=<b> <c>=<d> `
{app="plain"}
{app="plain"} | pattern `<ip> - <user> [<_>] "<method> <path> <_>" <status> <size>`
{app="plain"} | pattern `<ip> - <user> <_> "<method> <path> HTTP/<v>" <status> <size>` | status >= 400
{app="plain"} | regexp `(?P<ip>\d+\.\d+\.\d+\.\d+).*" (?P<status>\d+)`
{app="plain"} |= ip("10.0.0.0/8")
{app="plain"} != ip("10.0.0.0/8")
{app="plain"} |= ip("10.0.0.7")
{app="plain"} |= ip("10.0.0.1-10.2.0.0")
{app="plain"} |= ip("2001:db8::/32")
{app="plain"} |= ip("::1")
{app="plain"} |= ip("fe80::/10")
{app="plain"} |= ip("5.6.7.8")
{app="plain"} |= ip("0.0.0.0/0")
{app="plain"} |= ip("10.0.0.7") or "panic"
{app="plain"} |= "panic" or ip("10.0.0.7")
{app="plain"} |> "GET <_>"
{app="plain"} |> "<_>GET <_>"
{app="plain"} |> "foo <_> baz"
{app="plain"} !> "foo <_> baz"
{app="plain"} |> "foo <_>"
{app="plain"} |> "<_>baz"
{app="plain"} |> "baz"
{app="plain"} |> ""
{app="plain"} |> "<_>"
{app="plain"} !> "<_>"
{app="plain"} |> "foo <_>" or "<_>done<_>"
{app="plain"} !> "foo <_>" or "<_>done<_>"
{app="plain"} |> "aaaa <_> aaaa"
{app="plain"} |> "<_> - <_> [<_>] <_>"
{app="plain"} | decolorize
{app="plain"} | decolorize |= "error done"
{app="plain"} |~ "error.done"
{app="plain"} |~ "(?i)error"
{app="plain"} |~ "(?i)GRÖSSE"
{app="plain"} |~ "(?i)größe"
{app="plain"} |~ "^error"
{app="plain"} |~ "^\\s"
{app="plain"} |~ "at f.*at g"
{app="plain"} |~ "(?s)at f.*at g"
{app="plain"} |~ "(?m)^\\tat f"
{app="plain"} |~ "^\\tat f"
{app="plain"} |~ "x$"
{app="plain"} |~ "\\bfoo\\b"
{app="plain"} |~ "[[:upper:]]{5}"
{app="plain"} |~ "\\p{L}+ über"
{app="plain"} |~ "\\w+öße"
{app="plain"} |~ "gr..e"
{app="plain"} |~ "error|panic"
{app="plain"} !~ "error|panic"
{app="plain"} |~ "error" or "panic"
{app="plain"} !~ "error" or "panic"
{app="plain"} |~ ""
{app="plain"} !~ ""
{app="plain"} |~ ".*"
{app="plain"} |~ ".+"
{app="plain"} |~ `\QERROR connection\E`
{app="plain"} |= "error" or "panic" or "foo"
{app="plain"} != "error" or "panic" or "foo"
{app="plain"} |= "error" != "done" or "x"
{app="plain"} |= "\t"
{app="plain"} |= "\u2028"
{app="plain"} |= "\x00"
{app="plain"} |= "💥"
{app="plain"} |= "\U0001f4a5"
{app="plain"} |= `"q"`
{app="plain"} |= "`tick`"
{app="plain"} |= "\r"
{app="plain"} | line_format "{{__line__}}!"
{app="plain"} | line_format ""
{app="plain"} | line_format "{{.app}} {{.missing}} {{ .detected_level }}"
{app="plain"} | label_format line=`{{__line__}}`
{app="plain"} | detected_level="error"
{app="plain"} | detected_level!="unknown"
{app="plain"} | logfmt
{app="plain"} | logfmt --strict | __error__=""
{app="plain"} | unpack
{app="packed"} | unpack
{app="packed"} | unpack | __error__=""
{app="packed"} | unpack | json
{app="packed"} | unpack | logfmt
{app="packed"} | unpack | app_extracted="packed"
{app="packed"} | unpack |= "line"
{app="packed"} | json
{app="meta"}
{app="meta"} | trace="t1"
{app="meta"} | trace=~"t.+"
{app="meta"} | trace!=""
{app="meta"} | trace=""
{app="meta"} | status=999
{app="meta"} | json
{app="meta"} | json | status_extracted="503"
{app="meta"} | json | status="999"
{app="meta"} | json | app_extracted="inner"
{app="meta"} | app_extracted="meta-app"
{app="meta"} | odd_name="x"
{app="meta"} | n > 40
{app="meta"} | logfmt
{app="meta"} | logfmt | n_extracted!=""
{app="meta"} | drop trace
{app="meta"} | drop trace="t1"
{app="meta"} | drop trace | json
{app="meta"} | drop status | json
{app="meta"} | drop app | json
{app="meta"} | keep trace
{app="meta"} | keep trace, app
{app="meta"} | label_format trace=`x`
{app="meta"} | label_format new=trace
{app="meta"} | label_format app=trace
{app="meta"} | label_format trace=`x` | json
{app="meta"} | user="ünï"
{app="meta"} | level="critical"
{app="meta"} | detected_level="critical"
{app="odd"}
{app="odd", text=~"a.*é 💥"}
{app="odd", text=~"(?-s)a.*é 💥"}
{app="odd", text="<&>"}
{app="odd", number=~"1\\.5"}
{app="odd"} | number > 1
{app="odd"} | text="<&>"
{app="odd"} | text=~".*d é.*"
{app="odd"} | text=~"(?s).*d é.*"
{app="level"}
{app="level"} | logfmt
{app="order"}
{app=~"order|level"} | drop m
{app="many"} | logfmt
{app="many"} | logfmt | drop i_extracted, half
{app="many"} | logfmt | drop i, i_extracted, half, k, service_name
{app=~"many|order"} |= "k=0"
{app="many", i=~"[0-3]"} | i=~"[2-9]"
{app="many", i!="3", i!~"[4-9]"}
{app="many", half="1"} | half="1"
{app=~".+", env=""}
{app=~".+", env!=""} |= "n"
{app=~".+", env=~"|prod"} |= "level"
{service_name="json"}
{service_name=~"many|odd"}
{ app = "json" , env = "prod" } # a comment
{app="json"} // another
{app="json"} /* and another */ |= "level"
{APP="json"}
{app="JSON"}
{app=~"(?i)JSON"} |= "level"
{app=~"js"}
{app=~"js.n"} |= "level"
{app=`json`} |= `level`
{app="json"} | JSON | N = 7
({app="json"} |= "level")
({app="json"})
{app="j\u0073on"} |= "level"
{app="\x6ason"} |= "level"
'''

METRICS = r'''
count_over_time({app="json"}[1m])
count_over_time({app="json"}[1m] offset 1m)
count_over_time({app="json"}[1m] offset -1m)
count_over_time({app="json"}[10s])
count_over_time({app="json"}[15s] offset 5s)
rate({app="json"}[1m])
rate({app="json"}[1s])
bytes_over_time({app="json"}[1m])
bytes_rate({app="json"}[1m])
sum(count_over_time({app=~".+"}[1m]))
sum by (app) (count_over_time({app=~".+"}[1m]))
sum by (app, env) (count_over_time({app=~".+"}[1m]))
sum by (env) (count_over_time({app=~".+"}[1m]))
sum without (app, service_name, detected_level) (count_over_time({app=~"json|plain"}[1m]))
sum by (missing) (count_over_time({app="json"}[1m]))
sum by () (count_over_time({app="json"}[1m]))
sum without () (count_over_time({app="json"}[1m]))
sum by (detected_level) (count_over_time({app=~".+"}[1m]))
sum by (level, detected_level) (count_over_time({app=~".+"} | drop __error__ [1m]))
count_over_time({app="json"} | json [1m])
count_over_time({app="json"} | json | __error__="" [1m])
sum(count_over_time({app="json"} | json [1m]))
sum(count_over_time({app="json"} | json | __error__="" [1m]))
sum by (level) (count_over_time({app="json"} | json [1m]))
sum by (level) (count_over_time({app="json"} | json | __error__="" [1m]))
sum by (status) (count_over_time({app="json"} | json | level="info" [1m]))
sum by (level) (count_over_time({app="json"} | json | n > 1 [1m]))
sum by (level) (count_over_time({app="json"} | json | n > 1 | __error__="" [1m]))
sum by (__error__) (count_over_time({app="json"} | json [1m]))
sum by (__error__, level) (count_over_time({app="json"} | json | n > 1 [1m]))
sum by (app_extracted) (count_over_time({app="json"} | json | __error__="" [1m]))
sum by (app) (count_over_time({app="json"} | json | __error__="" [1m]))
sum by (level) (count_over_time({app="logfmt"} | logfmt [1m]))
sum by (level) (count_over_time({app="logfmt"} | logfmt --strict [1m]))
sum by (n) (count_over_time({app="logfmt"} | logfmt [1m]))
sum by (dup) (count_over_time({app="logfmt"} | logfmt | dup!="" [1m]))
sum by (empty) (count_over_time({app="logfmt"} | logfmt --keep-empty [1m]))
sum by (level) (count_over_time({app="logfmt"} | logfmt | line_format "{{.msg}}" [1m]))
sum(bytes_over_time({app="logfmt"} | logfmt | line_format "{{.msg}}" [1m]))
sum(bytes_over_time({app="json"} | json | line_format "{{.level}}" | __error__="" [1m]))
sum(bytes_over_time({app="plain"} | decolorize [10m]))
sum by (trace) (count_over_time({app="meta"}[1m]))
sum by (trace) (count_over_time({app="meta"} | trace!="" [1m]))
count_over_time({app="meta"}[1m])
count_over_time({app="meta"} | keep trace [1m])
count_over_time({app="meta"} | drop detected_level, service_name, trace [1m])
sum by (status, status_extracted) (count_over_time({app="meta"} | json | __error__="" [1m]))
absent_over_time({app="nothing"}[1m])
absent_over_time({app="nothing", x="y"}[1m])
absent_over_time({app="nothing", x="y", x!="z"}[1m])
absent_over_time({app=~"nothing"}[1m])
absent_over_time({app="json"}[1m])
absent_over_time({app="json"} |= "no such line" [1m])
absent_over_time({app="nothing", env=""}[1m])
sum(absent_over_time({app="nothing"}[1m]))
count(absent_over_time({app="nothing", x="y"}[1m]))
absent_over_time({app="json"} | json | unwrap missing [1m])
sum_over_time({app="num"} | logfmt | unwrap v [1m])
sum_over_time({app="num"} | logfmt | unwrap v | __error__="" [1m])
avg_over_time({app="num"} | logfmt | unwrap v [1m])
min_over_time({app="num"} | logfmt | unwrap v [1m])
max_over_time({app="num"} | logfmt | unwrap v [1m])
stddev_over_time({app="num"} | logfmt | unwrap v [1m])
stdvar_over_time({app="num"} | logfmt | unwrap v [1m])
first_over_time({app="num"} | logfmt | unwrap v [1m])
last_over_time({app="num"} | logfmt | unwrap v [1m])
quantile_over_time(0.5, {app="num"} | logfmt | unwrap v [1m])
quantile_over_time(0.99, {app="num"} | logfmt | unwrap v [1m])
quantile_over_time(0, {app="num"} | logfmt | unwrap v [1m])
quantile_over_time(1, {app="num"} | logfmt | unwrap v [1m])
quantile_over_time(-1, {app="num"} | logfmt | unwrap v [1m])
quantile_over_time(2, {app="num"} | logfmt | unwrap v [1m])
quantile_over_time(0.3, {app="num"} | logfmt | unwrap v [1m]) by (kind)
rate({app="num"} | logfmt | unwrap v [1m])
rate_counter({app="num"} | logfmt | unwrap v [1m])
rate_counter({app="counter"} | logfmt | unwrap c [1m])
rate_counter({app="counter"} | logfmt | unwrap c [30s])
rate_counter({app="counter"} | logfmt | unwrap c [10s])
sum(rate_counter({app="counter"} | logfmt | unwrap c [1m]))
avg_over_time({app="num"} | logfmt | unwrap v [10m])
stddev_over_time({app="num"} | logfmt | unwrap v | v < 1000 [10m])
sum_over_time({app="num"} | logfmt | unwrap v | v < 1000 | v > -1000 [10m])
sum_over_time({app="num"} | logfmt | v < 1000 | unwrap v [10m])
max_over_time({app="num"} | logfmt | unwrap v [10m]) by (app)
max_over_time({app="num"} | logfmt | unwrap v [10m]) by (v)
max_over_time({app="num"} | logfmt | unwrap v [10m]) without (kind)
max_over_time({app="num"} | logfmt | unwrap v [10m]) by ()
max_over_time({app="num"} | logfmt | unwrap v [10m]) without ()
sum by (v) (sum_over_time({app="num"} | logfmt | unwrap v [1m]))
sum by (kind) (sum_over_time({app="num"} | logfmt | unwrap v [1m]))
sum_over_time({app="json"} | json | unwrap n [1m])
sum_over_time({app="json"} | json | unwrap n | __error__="" [1m])
sum(sum_over_time({app="json"} | json | unwrap n | __error__="" [1m]))
sum by (level) (sum_over_time({app="json"} | json | unwrap n | __error__="" [1m]))
max by (level) (max_over_time({app="json"} | json | unwrap n | __error__="" [1m]))
max_over_time({app="json"} | json | unwrap bytes(size) | __error__="" [1m]) by (level)
max_over_time({app="json"} | json | unwrap duration(dur) | __error__="" [1m]) by (level)
max_over_time({app="json"} | json | unwrap duration_seconds(dur) | __error__="" [10m]) by (app)
min_over_time({app="json"} | json | unwrap duration(dur) | __error__="" [10m]) by (app)
sum(sum_over_time({app="json"} | json | unwrap duration(dur) [1m]))
sum by (__error__) (sum_over_time({app="json"} | json | unwrap n [1m]))
sum by (__error__) (sum_over_time({app="json"} | json | unwrap duration(dur) [1m]))
sum by (app) (sum_over_time({app="json"} | json | unwrap status | __error__="" [1m]))
sum by (level) (rate({app="json"} | json | unwrap n | __error__="" [1m]))
avg_over_time({app="logfmt"} | logfmt | unwrap n | __error__="" [1m])
avg_over_time({app="logfmt"} | logfmt | unwrap n | __error__="" [1m]) by (level)
avg_over_time({app="logfmt"} | logfmt | unwrap n | __error__="" | level="info" [10m]) by (level)
avg_over_time({app="logfmt"} | logfmt | unwrap missing [1m])
sum_over_time({app="meta"} | unwrap status [1m])
sum by (trace) (sum_over_time({app="meta"} | unwrap status [1m]))
sum_over_time({app="meta"} | unwrap status [1m]) / 2
sum(sum_over_time({app="logfmt"} | logfmt | unwrap bytes(size) | __error__="" [10m]))
sum by (i) (count_over_time({app="many"}[1m]))
topk(3, sum by (i) (count_over_time({app="many"}[10m])))
bottomk(2, sum by (i) (count_over_time({app="many"}[10m])))
topk(1, sum by (i, half) (count_over_time({app="many", i=~"1|3|5|7|9"}[10m]))) by (half)
topk by (half) (1, sum by (i, half) (count_over_time({app="many", i=~"0|3|5|7|8"}[10m])))
topk(100, sum by (i) (count_over_time({app="many"}[1m])))
sum(topk(100, sum by (i) (count_over_time({app="many"}[1m]))))
max(count_over_time({app="many"}[10m]))
min(count_over_time({app="many"}[10m]))
avg(count_over_time({app="many"}[10m]))
count(count_over_time({app="many"}[10m]))
stddev(count_over_time({app="many"}[10m]))
stdvar(count_over_time({app="many"}[10m]))
avg by (half) (count_over_time({app="many"}[10m]))
max without (i) (count_over_time({app="many"}[10m]))
count by (half) (count_over_time({app="many"}[1m]))
sort(sum by (half) (count_over_time({app="many"}[10m])))
sort_desc(sum by (half) (count_over_time({app="many"}[10m])))
sort_desc(sum by (app) (count_over_time({app=~"json|plain|num|order"}[1h])))
sum(avg_over_time({app="num"} | logfmt | unwrap v [10m]))
avg(sum_over_time({app="num"} | logfmt | unwrap v | v < 100 [1m]))
max(last_over_time({app="num"} | logfmt | unwrap v [1m]))
min(last_over_time({app="num"} | logfmt | unwrap v [1m]))
stddev(last_over_time({app="num"} | logfmt | unwrap v [1m]))
vector(1)
vector(0.1)
vector(1) + vector(1)
vector(1e21)
vector(0.0000001)
1
1 + 1
-1
+1
1 / 0
-1 / 0
0 / 0
1 % 0
5 % 3
-5 % 3
5.5 % 2
2 ^ 3 ^ 2
2 ^ 0.5
1e21
1e-7
1 > 2
2 > 1
1 == 1
1 > bool 2
2 > bool 1
10 - 5 - 2
2 * 3 + 4 * 5
(2 + 3) * 4
1_000
.5
5.
1 + vector(2)
vector(2) * 3
vector(1) == 1
vector(1) == 2
vector(1) == bool 2
1 == bool vector(1)
2 > vector(1)
vector(0) / 0
vector(1) / 0
vector(1) % 0
vector(1) or vector(2)
vector(1) and vector(2)
vector(1) unless vector(2)
sum(vector(1))
avg(vector(3)) + 1
topk(1, vector(3))
count(vector(3)) or vector(7)
label_replace(vector(1), "a", "b", "", "")
label_replace(vector(1), "a", "b", "c", "d")
sum(count_over_time({app="nothing"}[1m])) or vector(0)
sum(count_over_time({app="nothing"}[1m]))
sum(count_over_time({app="json"}[1m])) + sum(count_over_time({app="plain"}[1m]))
sum(count_over_time({app="json"}[1m])) / sum(count_over_time({app="nothing"}[1m]))
sum(count_over_time({app="json"}[1m])) / 0
sum(count_over_time({app="json"}[1m])) * 1e300 * 1e300
-1 * sum(count_over_time({app="json"}[1m])) * 1e300 * 1e300
sum(count_over_time({app="json"}[1m])) % 4
sum(count_over_time({app="json"}[1m])) ^ 2
2 ^ sum(count_over_time({app="json"}[1m]))
sum(count_over_time({app="json"}[1m])) - 3 * 2
sum(count_over_time({app="json"}[1m])) > 3
sum(count_over_time({app="json"}[1m])) > bool 3
3 < sum(count_over_time({app="json"}[1m]))
3 < bool sum(count_over_time({app="json"}[1m]))
6 >= sum(count_over_time({app="json"}[1m])) > 1
sum by (app) (count_over_time({app=~"json|plain"}[1m])) / on (app) sum by (app) (count_over_time({app=~"json|many"}[1m]))
sum by (app) (count_over_time({app=~"json|plain"}[1m])) / ignoring (app) sum(count_over_time({app=~"json"}[1m]))
sum by (app) (count_over_time({app=~"json|plain"}[1m])) / ignoring (app) group_left () sum(count_over_time({app=~"json"}[1m]))
sum by (app) (count_over_time({app=~"json|plain"}[1m])) / ignoring (app) group_left sum(count_over_time({app=~"json"}[1m]))
sum by (app) (count_over_time({app=~"json|plain"}[1m])) / on () group_left () sum(count_over_time({app=~"json"}[1m]))
sum(count_over_time({app=~"json"}[1m])) * on () group_right () sum by (app) (count_over_time({app=~"json|plain"}[1m]))
sum by (app, env) (count_over_time({app=~"json|plain"}[1m])) * on (app) group_left (env) sum by (app, env) (count_over_time({app=~"json|plain"}[10m]))
sum by (app, env) (count_over_time({app=~"json|plain"}[1m])) * on (app) group_left (missing) sum by (app) (count_over_time({app=~"json|plain"}[10m]))
sum by (app) (count_over_time({app=~"json|plain"}[1m])) * on (app) group_left (env) sum by (app, env) (count_over_time({app=~"json|plain"}[10m]))
sum by (i, half) (count_over_time({app="many"}[1m])) / on (half) group_left () sum by (half) (count_over_time({app="many"}[1m]))
sum by (i, half) (count_over_time({app="many"}[10m])) > on (half) group_left () avg by (half) (count_over_time({app="many"}[10m]))
sum by (i, half) (count_over_time({app="many"}[10m])) > bool on (half) group_left () avg by (half) (count_over_time({app="many"}[10m]))
avg by (half) (count_over_time({app="many"}[10m])) < on (half) group_right () sum by (i, half) (count_over_time({app="many"}[10m]))
sum by (i, half) (count_over_time({app="many"}[10m])) / on (half) sum by (half) (count_over_time({app="many"}[10m]))
sum by (half) (count_over_time({app="many"}[10m])) / on (half) sum by (i, half) (count_over_time({app="many"}[10m]))
sum by (i, half) (count_over_time({app="many"}[10m])) / on (half) group_left () sum by (i, half) (count_over_time({app="many"}[10m]))
sum by (i) (count_over_time({app="many"}[10m])) / on (none) sum by (half) (count_over_time({app="many"}[10m]))
sum by (app) (count_over_time({app="json"}[10m])) / on (app) sum by (app, i) (count_over_time({app="many"}[10m]))
sum by (app, i) (count_over_time({app="many"}[10m])) / on (app) sum by (app) (count_over_time({app="json"}[10m]))
sum by (i, half) (count_over_time({app="many"}[10m])) > 100 / on (half) group_left () sum by (half) (count_over_time({app="many"}[10m]))
sum by (i) (count_over_time({app="many"}[1m])) and sum by (i) (count_over_time({app="many", half="1"}[1m]))
sum by (i) (count_over_time({app="many"}[1m])) unless sum by (i) (count_over_time({app="many", half="1"}[1m]))
sum by (i) (count_over_time({app="many", half="0"}[1m])) or sum by (i) (count_over_time({app="many"}[10m]))
sum by (i, half) (count_over_time({app="many"}[1m])) and on (half) sum by (half) (count_over_time({app="many", half="1"}[1m]))
sum by (i, half) (count_over_time({app="many"}[1m])) unless ignoring (i) sum by (half) (count_over_time({app="many", half="1"}[1m]))
sum by (i, half) (count_over_time({app="many"}[1m])) or on (half) sum by (half) (count_over_time({app="many", half="1"}[1m]))
sum by (app) (count_over_time({app=~"json|plain"}[1m])) == sum by (app) (count_over_time({app=~"json|plain"}[1m]))
sum by (app) (count_over_time({app=~"json|plain"}[1m])) != sum by (app) (count_over_time({app=~"json|plain"}[1m] offset 1m))
sum by (app) (count_over_time({app=~"json|plain"}[1m])) >= bool sum by (app) (count_over_time({app=~"json|plain"}[1m] offset 1m))
count_over_time({app="json"}[1m]) - ignoring (detected_level) count_over_time({app="json"}[1m])
sum by (half) (rate({app="many"}[1m])) * 100 / ignoring (half) group_left sum(rate({app="many"}[1m]))
label_replace(sum by (app) (count_over_time({app=~"json|plain"}[1m])), "new", "$1-x", "app", "(.*)")
label_replace(sum by (app) (count_over_time({app=~"json|plain"}[1m])), "new", "${first}", "app", "(?P<first>.).*")
label_replace(sum by (app) (count_over_time({app=~"json|plain"}[1m])), "new", "$1", "app", "j(.*)")
label_replace(sum by (app) (count_over_time({app=~"json|plain"}[1m])), "app", "", "app", "json")
label_replace(sum by (app) (count_over_time({app=~"json|plain"}[1m])), "app", "", "app", ".*")
label_replace(sum by (app) (count_over_time({app=~"json|plain"}[1m])), "app", "$2", "app", "(.).*")
label_replace(sum by (app) (count_over_time({app=~"json|plain"}[1m])), "x", "$0$1a", "app", "(.).*")
label_replace(sum by (app) (count_over_time({app=~"json|plain"}[1m])), "x", "$$1", "app", "(.).*")
label_replace(sum by (app) (count_over_time({app=~"json|plain"}[1m])), "x", "y", "missing", "")
label_replace(sum by (app) (count_over_time({app=~"json|plain"}[1m])), "x", "y", "app", "js")
sum(label_replace(sum by (app) (count_over_time({app=~"json|plain"}[1m])), "app", "", "app", ".*"))
label_replace(label_replace(vector(1), "a", "1", "", ".*"), "b", "$1", "a", "(.)")
label_replace(sum by (msg) (count_over_time({app="json"} | json | msg!="" | __error__="" [10m])), "new", "$1", "msg", "(l).*")
sum by (new) (label_replace(count_over_time({app=~"json|plain"}[1m]), "new", "$1", "app", "(.).*"))
count_over_time({app="odd"}[10m])
sum by (text) (count_over_time({app="odd"}[10m]))
sum by (number) (count_over_time({app="odd"}[10m]))
count_over_time({app="order"}[10m])
sum(count_over_time({app="order"}[1s]))
sum(count_over_time({app="order"}[10s]))
count_over_time({app="level"} | logfmt [10m])
sum by (level) (count_over_time({app="level"} | logfmt [10m]))
sum by (level_extracted) (count_over_time({app="level"} | logfmt [10m]))
count_over_time({app="json"}[1m] |= "level")
count_over_time(({app="json"} |= "level")[1m])
count_over_time({app="json"}[1m] offset 1m |= "level" | json | __error__="")
sum by (app) (count_over_time({app=~"json|plain"}[1m] |= "level"))
sum(count_over_time({app="json"}[1m])) by (app)
SUM(COUNT_OVER_TIME({app="json"}[1m]))
sum(rate({app="json"} |= "level" [1m])) by (app) > 0.01
sum(count_over_time({group="random"} | logfmt | json | drop __error__, __error_details__ [1m])) by (level)
sum by (detected_level) (count_over_time({group="random"} | detected_level != "" [1m]))
sum(count_over_time({group="random"} | json | logfmt | drop __error__, __error_details__ | n!="" [1m])) by (n)
quantile_over_time(0.99, {group="random"} | logfmt | unwrap duration(dur) | __error__="" [5m]) by (app)
sum by (app, host) (rate({group="random"} |~ "(?i)error" [5m])) / sum by (app, host) (rate({group="random"}[5m]))
topk(2, sum by (app, host) (bytes_rate({group="random"}[10m])))
'''

# Refused, or at the edge of it: what counts is the status, and then the text.
REFUSED = r'''
{}
{app=""}
{app=~".*"}
{app!="x"}
{app=~"x|"}
{app="json"
{app="json"}}
{app="json"} |
{app="json"} | nostage
{app="json"} |= 
{app="json"} |= level
{app="json"} |= 'level'
{app='json'}
{app="json"} |~ "("
{app="json"} |~ "[a"
{app="json"} |~ "a**"
{app="json"} |~ "\d"
{app="json"} |~ `(?=x)`
{app="json"} |= ip("x")
{app="json"} |~ ip("10.0.0.1")
{app="json"} | json a=b
{app="json"} | json a="["
{app="json"} | json a=".b"
{app="json"} | logfmt --bogus
{app="json"} | regexp "no group"
{app="json"} | regexp "(?P<a>x)(?P<a>y)"
{app="json"} | regexp "("
{app="json"} | pattern "no capture"
{app="json"} | pattern "<a><b>"
{app="json"} | pattern "<a> <a>"
{app="json"} | pattern "<_>"
{app="json"} |> "<a>"
{app="json"} | label_format a=b, a=c
{app="json"} | label_format __error__=b
{app="json"} | line_format "{{.a"
{app="json"} | line_format "{{ nofunc .a }}"
{app="json"} | line_format
{app="json"} | n >
{app="json"} | n > "5"
{app="json"} | n =~ 5
{app="json"} | n > 5x
{app="json"} | n > 1.5d
{app="json"} | n > 5 kb
{app="json"} | drop
{app="json"} | keep a,
{app="json"} | unwrap n
{app="json"}[5m]
{app="json"} offset 5m
count_over_time({app="json"})
count_over_time({app="json"}[5])
count_over_time({app="json"}[5x])
count_over_time({app="json"}[1m1m])
count_over_time({app="json"}[5m]) by (app)
count_over_time({app="json"} | unwrap n [5m])
sum_over_time({app="json"}[5m])
quantile_over_time({app="json"} | unwrap n [5m])
quantile_over_time("x", {app="json"} | unwrap n [5m])
count_over_time(5, {app="json"}[5m])
rate_counter({app="json"}[5m])
sum_over_time({app="json"} | unwrap n | json [5m])
sum_over_time({app="json"} | unwrap bogus(n) [5m])
topk(count_over_time({app="json"}[5m]))
topk(0, count_over_time({app="json"}[5m]))
topk(-1, count_over_time({app="json"}[5m]))
topk(1.5, count_over_time({app="json"}[5m]))
sum(5, count_over_time({app="json"}[5m]))
sum(1)
sum by (count_over_time({app="json"}[5m]))
sum by (a,) (count_over_time({app="json"}[5m]))
sort(count_over_time({app="json"}[5m])) by (a)
sum({app="json"})
{app="json"} + 1
{app="json"} and {app="json"}
1 and 2
1 or vector(1)
vector(-1)
vector("x")
vector({app="json"})
label_replace(vector(1), "a", "b", "c")
label_replace(vector(1), "a", "b", "c", "(")
label_replace(vector(1), a, "b", "c", "d")
count_over_time({app="json"}[5m]) + bool 1
count_over_time({app="json"}[5m]) group_left count_over_time({app="json"}[5m])
count_over_time({app="json"}[5m]) + on app count_over_time({app="json"}[5m])
not_a_function({app="json"}[5m])
count_over_time({app="json"}[5m] |= "a" [5m])
rate({app="json"} offset 5m [5m])
rate({app="json"}[5m]) offset 5m
rate({app="json"}[5m] offset)
rate({app="json"}[5m] @ 5)
rate({app="json"}[-5m])
rate({app="json"}[0s])
-rate({app="json"}[5m])
{app="json"} | json | n > 5 or
{app="json"} | (n > 5
{app="json"} "x"
{"app"="json"}
{app="json",}
{app="json" env="prod"}
{a.b="json"}
{é="json"}
{by="json"}
{app="json"} | by="x"
{app="\q"}
{app="json} 
{app=`json}
0x10
1e
NaN
vector(NaN)
'''


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip()]
