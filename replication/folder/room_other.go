//go:build !linux

package folder

import "os"

func takeRoom(*os.File, int64) error { return nil }
