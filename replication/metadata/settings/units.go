package settings

import (
	"math"
	"strconv"
	"strings"
)

// Unit is what a setting counts, by its name: "milliseconds", "minutes", "hours" or
// "bytes"; "" for everything else.
func (d *Definition) Unit() string {
	switch {
	case d.Type != Int && d.Type != Long:
	case strings.HasSuffix(d.Name, ".ms"):
		return "milliseconds"
	case strings.HasSuffix(d.Name, ".minutes"):
		return "minutes"
	case strings.HasSuffix(d.Name, ".hours"):
		return "hours"
	case strings.HasSuffix(d.Name, ".bytes"), strings.HasSuffix(d.Name, ".buffer.size"):
		return "bytes"
	}
	return ""
}

// Allowed says which values a setting may have, in words that follow "it is".
func (d *Definition) Allowed() string {
	what := "text"
	switch d.Type {
	case Boolean:
		what = "true or false"
		if d.valid.allowed != "" {
			return d.valid.allowed
		}
	case Int, Long, Short:
		what = "a whole number"
		if unit := d.Unit(); unit != "" {
			what += " of " + unit
		}
	case Double:
		what = "a number"
	case List:
		what = "a list with commas"
	}
	switch {
	case d.valid.allowed == "":
		return what
	case d.Type == String || d.Type == List:
		return d.valid.allowed
	}
	return what + ", " + d.valid.allowed
}

// units in milliseconds and bytes, as people write them. k, m and g of bytes are
// powers of 1,024, as in what Kafka's settings usually are.
var (
	timeUnits = map[string]int64{"ms": 1, "s": 1000, "m": minute, "min": minute, "h": hour, "d": day, "w": 7 * day}
	sizeUnits = map[string]int64{
		"b": 1, "k": 1 << 10, "kb": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "mib": 1 << 20,
		"g": 1 << 30, "gb": 1 << 30, "gib": 1 << 30, "t": 1 << 40, "tb": 1 << 40, "tib": 1 << 40,
	}
)

// Plain turns a value with a unit, as people write it, into the number that the
// setting counts: 7d of hours is 168, 10MB of bytes 10485760. What has no unit, or
// none that fits, stays as it is, for Validate to judge: 90m is no number of hours.
func (d *Definition) Plain(value string) string {
	trimmed := strings.TrimSpace(value)
	number := strings.TrimRight(trimmed, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit := strings.ToLower(trimmed[len(number):])
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n < 0 || unit == "" {
		return value
	}
	units, counts := timeUnits, int64(1)
	switch d.Unit() {
	case "bytes":
		units = sizeUnits
	case "milliseconds":
	case "minutes":
		counts = minute
	case "hours":
		counts = hour
	default:
		return value
	}
	scale, known := units[unit]
	if !known || n > math.MaxInt64/scale || n*scale%counts != 0 {
		return value
	}
	return strconv.FormatInt(n*scale/counts, 10)
}
