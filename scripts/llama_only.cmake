# Read by llama.cpp's own CMakeLists, where setup.sh compiles llama-cpp-python: its chat templates,
# server and command-line code are more than half of the compiling, and nothing here loads them.
set(LLAMA_BUILD_COMMON OFF)
