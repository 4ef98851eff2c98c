// Package clitest runs the real program in the tests of the commands' packages: it builds it once
// for each of them, starts nodes as processes of their own on free ports of 127.0.0.1, and ends
// only those, by their pid. A package that uses it has a TestMain that calls [Main].
package clitest
