//go:build !linux

package replication

import "os"

func takeRoom(*os.File, int64) error { return nil }
