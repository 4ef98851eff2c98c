package mux

import "errors"

// kernelPeeks says whether peekKernel works.
const kernelPeeks = false

func peekKernel(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }
