// Package local runs brokers on this machine: `serve` (serve.go) one in this process, `up` (up.go)
// and `demo` (demo.go) several as child processes (nodes.go), which end with this one.
//
// What a broker is comes from flags, the environment and a properties file with Kafka's names:
// config.go makes one list of settings of them, each with the place where it was given, so that
// a mistake is told with it. What is done with a broker then is package millrace's.
package local
