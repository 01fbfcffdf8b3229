# Makes the llama-cpp-python wheel carry llama-server, and none of llama.cpp's other tools.
# Passed as -DCMAKE_PROJECT_llama.cpp_INCLUDE=<this file> together with LLAMA_BUILD_TOOLS=ON:
# the tools are configured, and all but the server and what it links are left out of the build.

function(cloister_only_server)
    get_property(folders DIRECTORY tools PROPERTY SUBDIRECTORIES)
    foreach(folder IN LISTS folders)
        get_property(targets DIRECTORY "${folder}" PROPERTY BUILDSYSTEM_TARGETS)
        foreach(target IN LISTS targets)
            if(NOT target MATCHES "^(llama-server|llama-server-impl|server-context|llama-ui|llama-ui-assets|mtmd|mtmd-helper)$")
                set_target_properties(${target} PROPERTIES EXCLUDE_FROM_ALL TRUE)
            endif()
        endforeach()
    endforeach()
    install(TARGETS llama-server-impl LIBRARY)
endfunction()

cmake_language(DEFER CALL cloister_only_server)

# GCC (12.2) takes _tile_loadconfig to read 8 of its 64 bytes and leaves out the stores of most others: on a
# processor with AMX every quantised product then dies of what was on the stack. So it builds without AMX.
include(CheckCXXCompilerFlag)
check_cxx_compiler_flag(-mno-amx-tile CLOISTER_KNOWS_AMX)
if(CLOISTER_KNOWS_AMX AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
endif()
